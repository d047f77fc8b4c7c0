// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/direct.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/base/aligned.h"
#include "core/conv2d/padded_input.h"
#include "core/conv2d/panel_task.h"
#include "core/conv2d/phases.h"
#include "core/cpu/cpu.h"
#include "core/row_run/row_run.h"

namespace semisparse {
namespace {

// Output pixels as they lie in a phase, the rest of each row between them: first to last computable one.
int64_t extent(const Conv2dGeometry& g) {
  return (g.out_h() - 1) * Phases(g).pitch + g.out_w();
}

// Offsets of rows count bytes in 32 bits.
constexpr int64_t kMostFloats = UINT32_MAX / 4;

// Whether the input is read where it lies: neighbouring pixels and rows side by side, no padding, and offsets
// that fit.
template <class E>
bool direct_in_place(const Conv2dGeometry& g, const BasicConstTensor4<E>& input) {
  const int64_t channel = input.stride[1];
  return g.stride_h * g.stride_w == 1 && reads_in_place(g, input) && channel >= 0 &&
         channel <= (kMostFloats - g.in_h * g.in_w) / g.in_channels();
}

// Copies are made, and strided images cut into phases, as they are read: so many rows at once as stay in the
// L2 cache.
std::vector<Band> cut_bands(const Conv2dGeometry& g, const ColumnPlan& plan, int64_t element_bytes) {
  const Phases phases(g);
  const int64_t panels = static_cast<int64_t>(plan.panels.size());
  // Usually read in place.
  if (phases.count == 1 && g.pad_h + g.pad_w == 0) return {{0, panels, {0, phases.rows}}};
  const int64_t row_bytes = element_bytes * phases.count * phases.pitch * g.in_channels();
  const int64_t reach = g.dilation_h * (g.weight.kernel_h - 1) / g.stride_h + 1, shared = reach - 1;
  const int64_t fit =
      std::max(static_cast<int64_t>(cpu_info().l2_bytes) * 5 / 8 / row_bytes - shared, int64_t{1});
  const int64_t rows = phases.rows - shared, count = (rows + fit - 1) / fit;
  // Bands of nearly equal height, whose panels need not end at the end of a row.
  const int64_t panel_rows = int64_t{plan.widest} * plan.lanes / phases.pitch + 1;
  const int64_t most = std::min((rows + count - 1) / count + panel_rows, std::max(fit, panel_rows)) + shared;
  std::vector<Band> bands;
  for (int64_t p = 0; p < panels; ++p) {
    const Panel& panel = plan.panels[static_cast<size_t>(p)];
    const bool reads = panel.vectors > 0;
    const RowRange read{panel.first_y, std::min<int64_t>(panel.last_y + reach, phases.rows)};
    Band* const last = bands.empty() ? nullptr : &bands.back();
    if (last != nullptr && (!reads || read.last - last->rows.first <= most)) {
      ++last->panels;
      if (reads) last->rows.last = std::max(last->rows.last, read.last);
    } else {
      bands.push_back({p, 1, reads ? read : RowRange{0, 0}});
    }
  }
  return bands;
}

std::vector<uint32_t> row_offsets(const Conv2dGeometry& g, const PreparedWeight& weight, int64_t phase_floats,
                                  int64_t channel_floats, int64_t element_bytes) {
  const Phases phases(g);
  const size_t taps = static_cast<size_t>(g.weight.taps());
  std::vector<int64_t> of_tap;
  for (int64_t ky = 0; ky < g.weight.kernel_h; ++ky)
    for (int64_t kx = 0; kx < g.weight.kernel_w; ++kx) {
      const int64_t y = ky * g.dilation_h, x = kx * g.dilation_w;
      const int64_t phase = y % g.stride_h * g.stride_w + x % g.stride_w;
      of_tap.push_back(phase * phase_floats + y / g.stride_h * phases.pitch + x / g.stride_w);
    }
  std::vector<uint32_t> offsets(weight.rows.size()), of_row;  // of_row: of the chunk
  int64_t first_channel = 0;
  for (const PreparedWeight::Group& group : weight.groups) {
    for (const PreparedWeight::Chunk& chunk : group.chunks) {
      of_row.clear();
      for (int32_t c = chunk.first_channel; c < chunk.first_channel + chunk.channels; ++c)
        for (size_t t = 0; t < taps; ++t)
          of_row.push_back(static_cast<uint32_t>(
              element_bytes *
              ((first_channel + group.channels[static_cast<size_t>(c)]) * channel_floats + of_tap[t])));
      for (int32_t b = 0; b < group.blocks; ++b) {
        const RunBlock& block = weight.blocks[chunk.first_block + static_cast<size_t>(b)];
        const size_t first = static_cast<size_t>(block.rows - weight.rows.data());
        for (size_t i = 0; i < count_rows(block); ++i) offsets[first + i] = of_row[block.rows[i]];
      }
    }
    first_channel += g.weight.in_channels_per_group;
  }
  return offsets;
}

// `skipped`: floats of a phase before the image's first row.
template <class E>
void run_panel(const PanelTask<E>& t, const E* image, int64_t skipped, const uint32_t* offsets,
               int block_begin, int block_end) {
  const Panel& panel = *t.panel;
  const BasicRowRunKernels<E>& kernels = *t.kernels;
  if (panel.vectors == 0) {
    for (int b = block_begin; b < block_end; ++b) store_block(t, b, nullptr, 0);
    return;
  }
  const size_t width = static_cast<size_t>(panel.vectors * kernels.lanes);
  const E* starts[kMaxVectors];
  for (int v = 0; v < panel.vectors; ++v)
    starts[v] = image + (t.plan->vectors[static_cast<size_t>(panel.first_vector + v)].base - skipped);
  run_blocks(
      t, 1, block_begin, block_end, kBlockFilters * width,
      [&](int, const PreparedWeight::Chunk*) { return nullptr; },
      [&](std::nullptr_t, const RunBlock& runs, const float* init, float* acc) {
        const uint32_t* const rows =
            runs.rows == nullptr ? nullptr : offsets + (runs.rows - t.weight->rows.data());
        kernels.gemm_direct(panel.vectors, starts, rows, runs, init, acc, width);
      },
      [&](int block, float* acc) { store_block(t, block, acc, width); });
  finish_streaming(t.to);
}

}  // namespace

template <class E>
bool direct_applies(const Conv2dGeometry& g) {
  // Vectors never reach past the last computable pixel; a smaller image cannot fill one.
  const Phases phases(g);
  return extent(g) >= kernels_for<E>().lanes && phases.count * phases.floats <= kMostFloats / g.in_channels();
}

template <class E>
std::shared_ptr<const ColumnPlan> direct_plan(const Conv2dGeometry& g, const uint8_t* mask, int threads) {
  const BasicRowRunKernels<E>& kernels = kernels_for<E>();
  return make_direct_plan(static_cast<int32_t>(g.out_h()), static_cast<int32_t>(g.out_w()),
                          static_cast<int32_t>(Phases(g).pitch), mask,
                          {kernels.lanes, kernels.max_vectors, 0, threads});
}

template <class E>
int direct_chunk(const Conv2dGeometry& g, const ColumnPlan& plan, double density) {
  // A channel's pixels under a panel: in each phase that a tap is in, a line for each row of taps. They fill
  // 5/8 of the L1 cache.
  const int64_t phases_y = std::min(g.stride_h, g.weight.kernel_h),
                phases_x = std::min(g.stride_w, g.weight.kernel_w);
  const int64_t lines = phases_x * std::max(g.weight.kernel_h, phases_y);
  const int64_t bytes =
      static_cast<int64_t>(sizeof(E)) * lines * (std::max(plan.widest, 1) * plan.lanes + 16);
  const int64_t in_cache = static_cast<int64_t>(cpu_info().l1_bytes) * 5 / 8 / bytes;
  // Phases spread a channel over more lines: larger chunks lost there.
  const int used_rows = g.stride_h * g.stride_w == 1 ? 64 : 1;
  const int64_t channels = std::max(in_cache, used_rows_channels(g, used_rows, density));
  return static_cast<int>(std::clamp<int64_t>(
      channels, 1, std::min<int64_t>(g.weight.in_channels_per_group, 65535 / g.weight.taps())));
}

template <class E>
DirectLayout direct_layout(const Conv2dGeometry& g, const PreparedWeight& weight, const ColumnPlan& plan) {
  const Phases phases(g);
  DirectLayout layout;
  layout.bands = cut_bands(g, plan, sizeof(E));
  int64_t rows = 1;
  for (const Band& band : layout.bands) rows = std::max(rows, band.rows.last - band.rows.first);
  layout.phase_floats = rows * phases.pitch;
  layout.channel_floats = phases.count * layout.phase_floats;
  layout.offsets = row_offsets(g, weight, layout.phase_floats, layout.channel_floats, sizeof(E));
  return layout;
}

template <class E>
void direct_conv2d(const Conv2dGeometry& g, const PreparedWeight& weight, const ColumnPlan& plan,
                   const DirectLayout& layout, const BasicConv2dOperands<E>& operands, Parallel& parallel) {
  static thread_local BasicAlignedBuffer<E> copy_buffer;
  const BasicRowRunKernels<E>& kernels = kernels_for<E>();
  const Phases phases(g);
  const int64_t (&s)[4] = operands.input.stride;
  const bool in_place = direct_in_place(g, operands.input);
  const int64_t channel_floats = in_place ? s[1] : layout.channel_floats;
  const int64_t image_floats = in_place ? s[0] : channel_floats * g.in_channels();
  const int64_t slab = in_place ? g.batch : layout.bands.size() > 1 ? 1 : images_per_slab(g);
  // Vectors may start in the last row of a band and end past it.
  E* const copy =
      in_place ? nullptr : copy_buffer.reserve(static_cast<size_t>(slab * image_floats + kernels.lanes));
  std::vector<uint32_t> others;  // of an unusual view
  if (channel_floats != layout.channel_floats)
    others = row_offsets(g, weight, layout.phase_floats, channel_floats, sizeof(E));
  const uint32_t* const offsets = (others.empty() ? layout.offsets : others).data();
  const int64_t pixels = g.out_h() * g.out_w();
  const OutputPlace to = output_place(g, plan, operands.output);
  const float* const activated_fill = activate_fill(g, plan, kernels, operands);
  for (int64_t first = 0; first < g.batch; first += slab) {
    const int64_t images = std::min(slab, g.batch - first);
    const E* const base = in_place ? operands.input.data + first * s[0] : copy;
    for (const Band& band : layout.bands) {
      if (phases.count > 1)
        split_images(g, kernels, operands.input, first, images, band.rows, layout.phase_floats, copy,
                     parallel);
      else if (!in_place)
        copy_images(g, kernels, operands.input, first, images, band.rows, channel_floats, copy, parallel);
      share_panels(images, g.weight.groups, band.panels, 1, weight.groups[0].blocks, parallel,
                   [&](int64_t n, int64_t group, size_t panel, int, int block_begin, int block_end) {
                     const PanelTask<E> t{&g,
                                          &weight,
                                          &weight.groups[static_cast<size_t>(group)],
                                          &plan,
                                          &plan.panels[static_cast<size_t>(band.first_panel) + panel],
                                          &kernels,
                                          &operands,
                                          first + n,
                                          group * g.weight.in_channels_per_group,
                                          pixels,
                                          to,
                                          activated_fill};
                     run_panel(t, base + n * image_floats, band.rows.first * phases.pitch, offsets,
                               block_begin, block_end);
                   });
    }
  }
}

#define SEMISPARSE_INSTANTIATE(E)                                                                          \
  template bool direct_applies<E>(const Conv2dGeometry&);                                                  \
  template std::shared_ptr<const ColumnPlan> direct_plan<E>(const Conv2dGeometry&, const uint8_t*, int);   \
  template int direct_chunk<E>(const Conv2dGeometry&, const ColumnPlan&, double);                          \
  template DirectLayout direct_layout<E>(const Conv2dGeometry&, const PreparedWeight&, const ColumnPlan&); \
  template void direct_conv2d(const Conv2dGeometry&, const PreparedWeight&, const ColumnPlan&,             \
                              const DirectLayout&, const BasicConv2dOperands<E>&, Parallel&);
SEMISPARSE_INSTANTIATE(float)
SEMISPARSE_INSTANTIATE(Half)
#undef SEMISPARSE_INSTANTIATE

}  // namespace semisparse
