// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/im2col.h"

#include <algorithm>
#include <vector>

#include "core/base/aligned.h"
#include "core/conv2d/padded_input.h"
#include "core/row_run/row_run.h"

namespace semisparse {
namespace {

// What run_panel works on: one image, one group.
struct Task {
  const Conv2dGeometry* geometry;
  const PreparedWeight* weight;
  const PreparedWeight::Group* group;
  const ColumnPlan* plan;
  const RowRunKernels* kernels;
  const Conv2dOperands* operands;
  const float* planes;  // padded planes of the image, or null: read in place or staged
  int64_t n;
  int64_t first_channel;  // of the group

  // Output channel of filter f of a block, or -1 past the last.
  int64_t filter(int block, int f) const {
    const int at = block * kBlockFilters + f;
    return at < group->filters ? weight->filters[static_cast<size_t>(group->first_position + at)] : -1;
  }
};

// Bias of a block's four filters, 0 past the last.
void load_bias(const Task& t, int block, float* bias) {
  for (int f = 0; f < kBlockFilters; ++f) {
    const int64_t filter = t.filter(block, f);
    bias[f] = t.operands->bias != nullptr && filter >= 0 ? t.operands->bias[filter] : 0.0f;
  }
}

void store_block(const Task& t, const Panel& panel, int block, const float* sums, size_t width) {
  const Conv2dGeometry& g = *t.geometry;
  const int64_t pixels = g.out_h() * g.out_w();
  StoreArgs store;
  store.plan = t.plan;
  store.panel = &panel;
  store.activation = t.operands->activation;
  for (int f = 0; f < kBlockFilters; ++f) {
    const int64_t filter = t.filter(block, f);
    if (filter < 0) break;
    const int64_t offset = (t.n * g.out_channels() + filter) * pixels;
    store.acc = sums + static_cast<size_t>(f) * width;
    store.fill = t.operands->fill != nullptr ? t.operands->fill[filter] : 0.0f;
    store.residual = t.operands->residual != nullptr ? t.operands->residual + offset : nullptr;
    store.output = t.operands->output + offset;
    t.kernels->store(store);
  }
}

// One panel's buffers for one chunk: the packed vectors, then the packed tail.
struct PackedChunk {
  float* vectors = nullptr;
  float* tail = nullptr;
  size_t tail_column = 0;  // floats from one column of the tail to the next
};

PackedChunk pack_chunk(const Task& t, const Panel& panel, const PreparedWeight::Chunk& chunk) {
  static thread_local AlignedBuffer buffer;
  static thread_local std::vector<const float*> channels;
  const Conv2dGeometry& g = *t.geometry;
  const size_t rows = static_cast<size_t>(chunk.channels) * static_cast<size_t>(g.weight.taps());
  const size_t lanes = static_cast<size_t>(t.kernels->lanes);
  const size_t vector_floats = rows * static_cast<size_t>(panel.vectors) * lanes;
  PackedChunk packed;
  packed.tail_column =
      (rows * kBlockFilters + lanes - 1) / lanes * lanes;  // vectors do not straddle cache lines
  const size_t tail_floats = static_cast<size_t>(panel.tail) * packed.tail_column;

  const RowRange staged = panel_rows(g, panel);
  const int64_t plane = t.planes != nullptr ? padded_plane(g) : (staged.last - staged.first) * padded_w(g);
  const size_t staged_floats =
      t.planes != nullptr ? 0 : static_cast<size_t>(chunk.channels * plane + t.plan->read_ahead);
  packed.vectors = buffer.reserve(vector_floats + tail_floats + staged_floats);
  packed.tail = packed.vectors + vector_floats;
  float* const stage = packed.tail + tail_floats;
  channels.resize(static_cast<size_t>(chunk.channels));
  for (int32_t c = 0; c < chunk.channels; ++c) {
    const int64_t channel = t.first_channel + t.group->channels[static_cast<size_t>(chunk.first_channel + c)];
    const float*& start = channels[static_cast<size_t>(c)];
    if (t.planes != nullptr) {
      start = t.planes + channel * plane;
    } else if (const float* plane_start =
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

void run_panel(const Task& t, const Panel& panel, int block_begin, int block_end) {
  static thread_local AlignedBuffer sum_buffer;
  static thread_local std::vector<char> started;
  static const RunBlock no_rows;
  if (panel.vectors == 0) {
    for (int b = block_begin; b < block_end; ++b) store_block(t, panel, b, nullptr, 0);
    return;
  }
  const RowRunKernels& kernels = *t.kernels;
  const PreparedWeight::Group& group = *t.group;
  const size_t chunks = group.chunks.size(), lanes = static_cast<size_t>(kernels.lanes);
  const size_t vector_columns = static_cast<size_t>(panel.vectors) * lanes;
  const size_t width = vector_columns + (panel.tail > 0 ? lanes : 0);
  const size_t block_sums = kBlockFilters * width + static_cast<size_t>(panel.tail) * lanes;
  float* sums = sum_buffer.reserve(static_cast<size_t>(block_end - block_begin) * block_sums + lanes);
  started.assign(static_cast<size_t>(block_end - block_begin), 0);
  for (size_t i = 0; i < std::max<size_t>(chunks, 1); ++i) {
    const PreparedWeight::Chunk* chunk = i < chunks ? &group.chunks[i] : nullptr;  // null: no weight at all
    const PackedChunk packed = chunk != nullptr ? pack_chunk(t, panel, *chunk) : PackedChunk{};
    const bool last = i + 1 >= chunks;
    for (int b = block_begin; b < block_end; ++b) {
      const size_t at = static_cast<size_t>(b - block_begin);
      float* acc = sums + at * block_sums;
      const RunBlock& runs =
          chunk != nullptr ? t.weight->blocks[chunk->first_block + static_cast<size_t>(b)] : no_rows;
      const bool any = runs.counts[15] != 0 || runs.counts[0] != 0;
      if (any || (last && !started[at])) {
        // Until a block's first rows come, its sums are its bias.
        float bias[kBlockFilters];
        if (!started[at]) load_bias(t, b, bias);
        const float* init = started[at] ? nullptr : bias;
        kernels.gemm(panel.vectors, packed.vectors, vector_columns * sizeof(float), runs, init, acc, width);
        if (panel.tail > 0)
          kernels.gemm_tail(panel.tail, packed.tail, packed.tail_column, runs, init,
                            acc + kBlockFilters * width);
        started[at] = 1;
      }
      // Right after the block's last sums, so that the stores drain behind the next block's arithmetic.
      if (last && panel.tail > 0)
        kernels.finish_tail(panel.tail, acc + kBlockFilters * width, acc + vector_columns, width);
      if (last) store_block(t, panel, b, acc, width);
    }
  }
}

}  // namespace

int im2col_chunk(const Conv2dGeometry& g, const ColumnPlan& plan) {
  const int64_t rows = panel_rows_in_cache(plan);
  const int64_t channels = std::clamp<int64_t>(rows / g.weight.taps(), 1, g.weight.in_channels_per_group);
  return static_cast<int>(std::min(channels, 65535 / g.weight.taps()));
}

std::shared_ptr<const ColumnPlan> im2col_plan(const Conv2dGeometry& g, const uint8_t* mask, bool dense) {
  const RowRunKernels& kernels = selected_kernels();
  ColumnGeometry c;
  c.out_h = static_cast<int32_t>(g.out_h());
  c.out_w = static_cast<int32_t>(g.out_w());
  c.kernel_w = static_cast<int32_t>(g.weight.kernel_w);
  c.step_y = static_cast<int32_t>(g.stride_h * padded_w(g));
  c.step_x = static_cast<int32_t>(g.stride_w);
  c.tap_x = static_cast<int32_t>(g.dilation_w);
  return cached_column_plan(c, mask, {kernels.lanes, kernels.max_vectors, dense ? kernels.max_tail : 0});
}

void im2col_conv2d(const Conv2dGeometry& g, const PreparedWeight& weight, const ColumnPlan& plan,
                   const Conv2dOperands& operands, Parallel& parallel) {
  const RowRunKernels& kernels = selected_kernels();
  static thread_local AlignedBuffer padded_buffer;
  const int64_t plane = padded_plane(g), channels = g.in_channels(), image = plane * channels;
  const bool copied = !reads_in_place(g, operands.input) && !stage_rows(g, plan);
  const int64_t slab = copied ? images_per_slab(g) : g.batch;
  float* const padded =
      !copied
          ? nullptr
          : padded_buffer.reserve(static_cast<size_t>(slab * image) + static_cast<size_t>(plan.read_ahead));
  const int threads = parallel.threads();
  const int64_t groups = g.weight.groups, panels = static_cast<int64_t>(plan.panels.size());
  const int blocks = weight.groups[0].blocks;
  for (int64_t first = 0; first < g.batch; first += slab) {
    const int64_t images = std::min(slab, g.batch - first);
    if (copied) copy_images(g, kernels, operands.input, first, images, padded, parallel);
    // Columns are the first thing to share out. Where panels are few, so that one more or less would leave
    // threads waiting, filters are too: every share packs the panel for itself. No sum is cut, so the result
    // does not depend on the shares.
    const int64_t whole = images * groups * panels;
    int64_t shares = 1;
    if (threads > 1 && whole < 8 * threads) shares = std::clamp<int64_t>(blocks / 4, 1, threads);
    parallel.run(whole * shares, [&](int64_t task) {
      const int64_t share = task % shares, p = task / shares % panels;
      const int64_t group = task / shares / panels % groups, n = task / shares / panels / groups;
      const Task t{&g,
                   &weight,
                   &weight.groups[static_cast<size_t>(group)],
                   &plan,
                   &kernels,
                   &operands,
                   copied ? padded + n * image : nullptr,
                   first + n,
                   group * g.weight.in_channels_per_group};
      run_panel(t, plan.panels[static_cast<size_t>(p)], static_cast<int>(blocks * share / shares),
                static_cast<int>(blocks * (share + 1) / shares));
    });
  }
}

}  // namespace semisparse
