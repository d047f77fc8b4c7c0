// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/im2col.h"

#include <algorithm>
#include <vector>

#include "core/base/aligned.h"
#include "core/conv2d/padded_input.h"
#include "core/conv2d/panel_task.h"
#include "core/cpu/cpu.h"
#include "core/row_run/row_run.h"

namespace semisparse {
namespace {

template <class E>
struct Task : PanelTask<E> {
  const E* planes;  // padded planes of the image, or null: read in place or staged
};

// One panel's buffers for one chunk: the packed vectors, then the packed tail.
template <class E>
struct PackedChunk {
  E* vectors = nullptr;
  E* tail = nullptr;
  size_t tail_column = 0;  // elements from one column of the tail to the next
};

template <class E>
PackedChunk<E> pack_chunk(const Task<E>& t, const PreparedWeight::Chunk& chunk) {
  static thread_local BasicAlignedBuffer<E> buffer;
  static thread_local std::vector<const E*> channels;
  const Conv2dGeometry& g = *t.geometry;
  const Panel& panel = *t.panel;
  const size_t rows = static_cast<size_t>(chunk.channels) * static_cast<size_t>(g.weight.taps());
  const size_t lanes = static_cast<size_t>(t.kernels->lanes);
  const size_t vector_size = rows * static_cast<size_t>(panel.vectors) * lanes;
  PackedChunk<E> packed;
  packed.tail_column =
      (rows * kBlockFilters + lanes - 1) / lanes * lanes;  // vectors do not straddle cache lines
  const size_t tail_size = static_cast<size_t>(panel.tail) * packed.tail_column;

  const RowRange staged = panel_rows(g, panel);
  const int64_t plane = t.planes != nullptr ? padded_plane(g) : (staged.last - staged.first) * padded_w(g);
  const size_t staged_size =
      t.planes != nullptr ? 0 : static_cast<size_t>(chunk.channels * plane + t.plan->read_ahead);
  packed.vectors = buffer.reserve(vector_size + tail_size + staged_size);
  packed.tail = packed.vectors + vector_size;
  E* const stage = packed.tail + tail_size;
  channels.resize(static_cast<size_t>(chunk.channels));
  for (int32_t c = 0; c < chunk.channels; ++c) {
    const int64_t channel = t.first_channel + t.group->channels[static_cast<size_t>(chunk.first_channel + c)];
    const E*& start = channels[static_cast<size_t>(c)];
    if (t.planes != nullptr) {
      start = t.planes + channel * plane;
    } else if (const E* plane_start =
                   plane_in_place(g, t.operands->input, t.n, channel, t.plan->read_ahead)) {
      start = plane_start;
    } else {
      copy_rows(g, *t.kernels, t.operands->input, t.n, channel, staged, stage + c * plane);
      start = stage + c * plane - staged.first * padded_w(g);  // offsets of the plan count from row 0
    }
  }

  const int kernel_h = static_cast<int>(g.weight.kernel_h), kernel_w = static_cast<int>(g.weight.kernel_w);
  const int32_t tap_y = static_cast<int32_t>(g.dilation_h * padded_w(g));
  const int32_t tap_x = static_cast<int32_t>(g.dilation_w);
  t.kernels->pack(
      {channels.data(), chunk.channels, t.plan, &panel, kernel_h, kernel_w, tap_y, tap_x, packed.vectors});
  if (panel.tail > 0)
    t.kernels->pack_tail({channels.data(), chunk.channels, t.plan->tail_offsets.data(), panel.tail, kernel_h,
                          kernel_w, tap_y, tap_x, packed.tail, packed.tail_column});
  return packed;
}

// Floats of a filter's sums over a panel: its vectors, and one for what the tail comes to.
size_t panel_width(const Panel& panel, int lanes) {
  return static_cast<size_t>((panel.vectors + (panel.tail > 0 ? 1 : 0)) * lanes);
}

// Of a block's, with the tail's own.
size_t block_sums(const Panel& panel, int lanes) {
  return kBlockFilters * panel_width(panel, lanes) + static_cast<size_t>(panel.tail * lanes);
}

// `count` panels from the task's on.
template <class E>
void run_panels(Task<E> t, int count, int block_begin, int block_end) {
  const BasicRowRunKernels<E>& kernels = *t.kernels;
  const Panel* const panels = t.panel;
  const size_t lanes = static_cast<size_t>(kernels.lanes);
  size_t most_sums = 0, width = 0;
  for (int p = 0; p < count; ++p) most_sums = std::max(most_sums, block_sums(panels[p], kernels.lanes));
  run_blocks(
      t, count, block_begin, block_end, most_sums,
      [&](int p, const PreparedWeight::Chunk* chunk) {
        t.panel = panels + p;
        width = panel_width(*t.panel, kernels.lanes);
        return chunk != nullptr && width > 0 ? pack_chunk(t, *chunk) : PackedChunk<E>{};
      },
      [&](const PackedChunk<E>& packed, const RunBlock& runs, const float* init, float* acc) {
        if (width == 0) return;  // a panel of nothing but skipped columns
        kernels.gemm(t.panel->vectors, packed.vectors, runs, init, acc, width);
        if (t.panel->tail > 0)
          kernels.gemm_tail(t.panel->tail, packed.tail, packed.tail_column, runs, init,
                            acc + kBlockFilters * width);
      },
      [&](int block, float* acc) {
        if (t.panel->tail > 0)
          kernels.finish_tail(t.panel->tail, acc + kBlockFilters * width, acc + width - lanes, width);
        store_block(t, block, acc, width);
      });
  finish_streaming(t.to);
}

// Weights of a group that come from the next cache for every panel, unless panels share them.
bool leave_cache(double weights) {
  return sizeof(float) * weights > static_cast<double>(cpu_info().l2_bytes) / 2;
}

}  // namespace

template <class E>
int im2col_chunk(const Conv2dGeometry& g, const ColumnPlan& plan, double density) {
  int64_t rows = panel_rows_in_cache(plan, sizeof(E));
  // Panels that take turns put sums away further off: longer chunks are worth a whole L1 cache. (Patterns of
  // single filters, 256 -> 256 at 14x14: 10 channels reach 58% of the peak, 16 to 18 65%, 32 62%.)
  const double weights = density * static_cast<double>(g.weight.elements() / g.weight.groups);
  if (static_cast<int>(plan.vectors.size()) > plan.widest && leave_cache(weights)) rows = rows * 8 / 5;
  const int64_t channels =
      std::clamp<int64_t>(std::max(rows / g.weight.taps(), used_rows_channels(g, 28, density)), 1,
                          g.weight.in_channels_per_group);
  return static_cast<int>(std::min(channels, 65535 / g.weight.taps()));
}

template <class E>
bool im2col_equal_runs(const ColumnPlan& plan) {
  const BasicRowRunKernels<E>& kernels = kernels_for<E>();
  return kernels.equal_runs && plan.widest < kernels.max_vectors;
}

int64_t im2col_panels_together(const ColumnPlan& plan, const PreparedWeight& weight) {
  const double weights = static_cast<double>(weight.weights.size() / weight.groups.size());
  if (plan.panels.empty() || !leave_cache(weights)) return 1;
  // Their sums take a quarter of the L2 cache.
  const size_t panel_bytes =
      sizeof(float) * static_cast<size_t>(weight.groups[0].blocks) * block_sums(plan.panels[0], plan.lanes);
  return static_cast<int64_t>(
      std::max<size_t>(1, cpu_info().l2_bytes / 4 / std::max<size_t>(panel_bytes, 1)));
}

template <class E>
std::shared_ptr<const ColumnPlan> im2col_plan(const Conv2dGeometry& g, const uint8_t* mask, bool dense,
                                              int threads) {
  const BasicRowRunKernels<E>& kernels = kernels_for<E>();
  ColumnGeometry c;
  c.out_h = static_cast<int32_t>(g.out_h());
  c.out_w = static_cast<int32_t>(g.out_w());
  c.kernel_w = static_cast<int32_t>(g.weight.kernel_w);
  c.step_y = static_cast<int32_t>(g.stride_h * padded_w(g));
  c.step_x = static_cast<int32_t>(g.stride_w);
  c.tap_x = static_cast<int32_t>(g.dilation_w);
  return cached_column_plan(c, mask,
                            {kernels.lanes, kernels.max_vectors, dense ? kernels.max_tail : 0, threads});
}

template <class E>
void im2col_conv2d(const Conv2dGeometry& g, const PreparedWeight& weight, const ColumnPlan& plan,
                   const BasicConv2dOperands<E>& operands, Parallel& parallel) {
  const BasicRowRunKernels<E>& kernels = kernels_for<E>();
  static thread_local BasicAlignedBuffer<E> padded_buffer;
  const int64_t plane = padded_plane(g), channels = g.in_channels(), image = plane * channels;
  const bool copied = !reads_in_place(g, operands.input) && !stage_rows(g, plan);
  const int64_t slab = copied ? images_per_slab(g) : g.batch;
  E* const padded =
      !copied
          ? nullptr
          : padded_buffer.reserve(static_cast<size_t>(slab * image) + static_cast<size_t>(plan.read_ahead));
  const int64_t pixels = g.out_h() * g.out_w();
  const OutputPlace to = output_place(g, plan, operands.output);
  const float* const activated_fill = activate_fill(g, plan, kernels, operands);
  for (int64_t first = 0; first < g.batch; first += slab) {
    const int64_t images = std::min(slab, g.batch - first);
    if (copied)
      copy_images(g, kernels, operands.input, first, images, {0, padded_h(g)}, plane, padded, parallel);
    share_panels(images, g.weight.groups, static_cast<int64_t>(plan.panels.size()),
                 im2col_panels_together(plan, weight), weight.groups[0].blocks, parallel,
                 [&](int64_t n, int64_t group, size_t panel, int count, int block_begin, int block_end) {
                   const Task<E> t{{&g, &weight, &weight.groups[static_cast<size_t>(group)], &plan,
                                    &plan.panels[panel], &kernels, &operands, first + n,
                                    group * g.weight.in_channels_per_group, pixels, to, activated_fill},
                                   copied ? padded + n * image : nullptr};
                   run_panels(t, count, block_begin, block_end);
                 });
  }
}

#define SEMISPARSE_INSTANTIATE(E)                                                                        \
  template std::shared_ptr<const ColumnPlan> im2col_plan<E>(const Conv2dGeometry&, const uint8_t*, bool, \
                                                            int);                                        \
  template int im2col_chunk<E>(const Conv2dGeometry&, const ColumnPlan&, double);                        \
  template bool im2col_equal_runs<E>(const ColumnPlan&);                                                 \
  template void im2col_conv2d(const Conv2dGeometry&, const PreparedWeight&, const ColumnPlan&,           \
                              const BasicConv2dOperands<E>&, Parallel&);
SEMISPARSE_INSTANTIATE(float)
SEMISPARSE_INSTANTIATE(Half)
#undef SEMISPARSE_INSTANTIATE

}  // namespace semisparse
