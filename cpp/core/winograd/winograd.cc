// SPDX-License-Identifier: Apache-2.0
#include "core/winograd/winograd.h"

#include <algorithm>
#include <cmath>

#include "core/base/aligned.h"
#include "core/conv2d/padded_input.h"
#include "core/conv2d/phases.h"
#include "core/cpu/cpu.h"
#include "core/row_run/row_run.h"
#include "core/weights/prepare.h"
#include "core/winograd/scratch.h"

namespace semisparse {
namespace {

// Shares of the filters for each thread where panels are few, so that one that is late does not keep the
// others waiting: as many sets of filters as two threads have shares, at least.
constexpr int kShares = 2;
// The same for dense weights over panels of one vector. Their time is that of fetching weights, which no two
// cores do at the same speed, and sums of one vector are small.
constexpr int kFullShares = 4;

// The input as the tile kernels read it: neighbouring pixels side by side. Several phases make a channel.
struct Image {
  const float* data;
  int64_t channel_stride, phase_stride, height, width, row_stride, pad_h, pad_w;
};

struct Layer {
  const Conv2dGeometry& g;
  const PreparedWeight& weight;
  const TilePlan& plan;
  const Conv2dOperands& operands;
  const RowRunKernels& rows = selected_kernels();
  const WinogradKernels& tiles = selected_winograd(plan.size);
  const PreparedWeight::Group& group = weight.groups[0];
  const int planes = plan.size.planes();
  const size_t phases = static_cast<size_t>(g.stride_h * g.stride_w);

  // Rows of every plane: the channels that any filter uses, each with its phases.
  size_t input_rows() const { return group.channels.size() * phases; }

  size_t width(const Panel& panel) const {
    return static_cast<size_t>(panel.vectors) * static_cast<size_t>(rows.lanes);
  }
  // Floats from one plane to the next: a cache line more than it takes, or all planes of a tile would fall
  // into the same set of the cache.
  size_t input_stride(const Panel& panel) const { return input_rows() * width(panel) + 16; }
  size_t input_floats(const Panel& panel) const { return static_cast<size_t>(planes) * input_stride(panel); }
};

// Rows [begin, end), transformed.
void transform_input(const Layer& l, const Image& image, const Panel& panel, size_t begin, size_t end,
                     float* out) {
  static thread_local AlignedBuffer scratch;
  TileInputArgs args;
  args.height = image.height;
  args.width = image.width;
  args.stride_h = image.row_stride;
  args.pad_h = image.pad_h;
  args.pad_w = image.pad_w;
  args.plan = &l.plan;
  args.panel = &panel;
  args.scratch = scratch.reserve(tile_scratch(l.plan));
  args.plane_stride = l.input_stride(panel);
  for (size_t row = begin; row < end; ++row) {
    args.in = image.data + l.group.channels[row / l.phases] * image.channel_stride +
              static_cast<int64_t>(row % l.phases) * image.phase_stride;
    args.out = out + row * l.width(panel);
    l.tiles.input(args);
  }
}

// Blocks of filters [begin, end): products of all planes, then pixels.
void compute_filters(const Layer& l, int64_t n, const Panel& panel, const float* input, int begin, int end) {
  static thread_local AlignedBuffer sum_buffer, scratch;
  const size_t width = l.width(panel);
  const size_t planes = static_cast<size_t>(l.planes);
  const int together = panel.vectors == 0 ? end - begin : l.weight.together;
  const size_t plane_stride =
      static_cast<size_t>(std::min(together, end - begin)) * kBlockFilters * width + 16;
  float* const sums = sum_buffer.reserve(planes * plane_stride);
  TileOutputArgs args;
  args.plane_stride = plane_stride;
  args.plan = &l.plan;
  args.panel = &panel;
  args.scratch = scratch.reserve(tile_scratch(l.plan));
  args.activation = l.operands.activation;
  static const float zeros[kBlockFilters] = {};
  static const RunBlock no_rows;
  const int64_t pixels = l.g.out_h() * l.g.out_w();
  const int columns = static_cast<int>(
      std::min(static_cast<int64_t>(width), l.plan.tiles->kept - int64_t{panel.first_vector} * l.rows.lanes));
  for (int first = begin; first < end;) {
    const int last = std::min(first / together * together + together, end);
    if (panel.vectors > 0) {
      for (size_t p = 0; p < planes; ++p) {
        const size_t chunks = std::max<size_t>(1, l.group.chunks.size());
        for (size_t i = 0; i < chunks; ++i) {
          const PreparedWeight::Chunk* const chunk = i < l.group.chunks.size() ? &l.group.chunks[i] : nullptr;
          const float* const panel_rows =
              chunk == nullptr ? input
                               : input + p * l.input_stride(panel) +
                                     static_cast<size_t>(chunk->first_channel) * l.phases * width;
          const size_t plane_weights = p * l.weight.plane_weights[static_cast<size_t>(first / together)];
          for (int b = first; b < last;) {
            float* const acc =
                sums + p * plane_stride + static_cast<size_t>(b - first) * kBlockFilters * width;
            if (chunk != nullptr && l.weight.full[chunk->first_block + static_cast<size_t>(b)]) {
              const float* const weights =
                  l.weight.blocks[chunk->first_block + static_cast<size_t>(b)].weights + plane_weights;
              l.rows.gemm_full(columns, panel_rows, static_cast<size_t>(chunk->channels) * l.phases, weights,
                               i == 0, acc, width);
              b += l.weight.full_blocks;
              continue;
            }
            RunBlock runs = no_rows;
            if (chunk != nullptr) {
              runs = l.weight.blocks[chunk->first_block + static_cast<size_t>(b)];
              runs.weights += plane_weights;
            }
            const bool any = runs.counts[15] != 0 || runs.counts[0] != 0;
            if (any || i == 0)
              l.rows.gemm(panel.vectors, panel_rows, runs, i == 0 ? zeros : nullptr, acc, width);
            ++b;
          }
        }
      }
    }
    for (int at = first * kBlockFilters; at < std::min(last * kBlockFilters, l.group.filters); ++at) {
      const int64_t filter = l.weight.filters[static_cast<size_t>(at)];
      const int64_t offset = (n * l.g.out_channels() + filter) * pixels;
      args.sums = sums + static_cast<size_t>(at - first * kBlockFilters) * width;
      args.bias = l.operands.bias != nullptr ? l.operands.bias[filter] : 0.0f;
      args.fill = l.operands.fill != nullptr ? l.operands.fill[filter] : 0.0f;
      args.residual = l.operands.residual != nullptr ? l.operands.residual + offset : nullptr;
      args.output = l.operands.output + offset;
      l.tiles.output(args);
    }
    first = last;
  }
}

// Whole panels as tasks: nothing is shared, nobody waits.
void run_panels(const Layer& l, const Image* images, int64_t first, int64_t count, Parallel& parallel) {
  const int64_t panels = static_cast<int64_t>(l.plan.tiles->panels.size());
  parallel.run(count * panels, [&](int64_t task) {
    static thread_local AlignedBuffer buffer;
    const int64_t n = task / panels;
    const Panel& panel = l.plan.tiles->panels[static_cast<size_t>(task % panels)];
    float* const input = buffer.reserve(l.input_floats(panel));
    if (panel.vectors > 0) transform_input(l, images[n], panel, 0, l.input_rows(), input);
    compute_filters(l, first + n, panel, input, 0, l.group.blocks);
  });
}

// Few panels for the threads: first they share the rows of the input, then the filters. No sum is cut, so
// the result does not depend on the shares.
void run_shares(const Layer& l, const Image& image, int64_t n, Parallel& parallel) {
  static thread_local AlignedBuffer buffer;
  const auto& panels = l.plan.tiles->panels;
  std::vector<size_t> starts;
  size_t floats = 0;
  for (const Panel& panel : panels) {
    starts.push_back(floats);
    floats += l.input_floats(panel);
  }
  float* const input = buffer.reserve(floats);
  const int64_t threads = parallel.threads(), panel_count = static_cast<int64_t>(panels.size());
  // A few more shares than threads, so that one that is late does not keep the others waiting.
  const size_t rows = l.input_rows();
  const int64_t row_shares = std::clamp<int64_t>(static_cast<int64_t>(rows) / 8, 1, 2 * threads);
  parallel.run(panel_count * row_shares, [&](int64_t task) {
    const size_t p = static_cast<size_t>(task / row_shares), share = static_cast<size_t>(task % row_shares);
    const size_t shares = static_cast<size_t>(row_shares);
    if (panels[p].vectors > 0)
      transform_input(l, image, panels[p], rows * share / shares, rows * (share + 1) / shares,
                      input + starts[p]);
  });
  const int64_t blocks = l.group.blocks;
  const bool fine = l.weight.plane_weights.size() % static_cast<size_t>(kFullShares * threads) == 0;
  const int64_t filter_shares = std::clamp<int64_t>(blocks / 2, 1, (fine ? kFullShares : kShares) * threads);
  parallel.run(panel_count * filter_shares, [&](int64_t task) {
    const size_t p = static_cast<size_t>(task / filter_shares);
    const int64_t step = std::max(1, l.weight.full_blocks);
    const auto cut = [&](int64_t share) {
      return static_cast<int>(share == filter_shares ? blocks : blocks * share / filter_shares / step * step);
    };
    const int64_t share = task % filter_shares;
    compute_filters(l, n, panels[p], input + starts[p], cut(share), cut(share + 1));
  });
}

}  // namespace

size_t tile_scratch(const TilePlan& plan) {
  size_t floats = 0;
  for (const Panel& panel : plan.tiles->panels) {
    const TileScratch size(plan, plan.tiles->lanes, panel.last_y - panel.first_y + 1);
    const int tile = plan.size.tile;
    const size_t input = size.lines + size.array * static_cast<size_t>(tile * plan.size.patch());
    const size_t output = static_cast<size_t>(panel.vectors * plan.tiles->lanes * tile * tile);
    floats = std::max({floats, input, output + static_cast<size_t>(plan.tiles->lanes)});
  }
  return floats;
}

bool multiplies_full_blocks(const Conv2dGeometry& g, int64_t tiles, bool every_kernel) {
  const RowRunKernels& kernels = selected_kernels();
  if (kernels.full_blocks == 0 || tiles == 0) return false;
  const int64_t lanes = kernels.lanes, columns = (tiles + lanes - 1) / lanes * lanes;
  if (columns == lanes) return true;
  // 28x28 pixels are 49 tiles, or three vectors and a sixteenth: a kernel that has filters along the vector
  // computes 49 columns, not 64 (512 channels 20% faster, 128 10%). It pays from an eighth on (20x20:
  // 25 of 32; not 40x40: 100 of 112), with enough products for each sum that it must transpose, and blocks
  // enough for threads to share.
  return every_kernel && 8 * (columns - tiles) >= columns &&
         g.in_channels() * g.stride_h * g.stride_w >= 64 && g.out_channels() >= 128;
}

KernelPlanes winograd_weight_planes(const Conv2dGeometry& g, const TilePlan& plan, bool every_kernel) {
  const WinogradSize size = plan.size;
  KernelPlanes planes;
  planes.count = size.planes();
  planes.rows = static_cast<int>(g.stride_h * g.stride_w);
  // Their sums take a quarter of the L2 cache, so that every plane of the input comes to the L1 cache once
  // for all of them; a little more of it rather than sets of which the threads' shares (run_shares) would get
  // a part: what is fetched ahead is then the thread's own, not another's. (256 -> 256 at 14x14 on two
  // threads takes 20% longer with shares that cut through sets.)
  const size_t block_bytes =
      sizeof(float) * static_cast<size_t>(size.planes() * kBlockFilters * std::max(plan.tiles->widest, 1) *
                                          plan.tiles->lanes);
  const double most = 1.25 * static_cast<double>(cpu_info().l2_bytes / 4) / static_cast<double>(block_bytes);
  const double blocks = std::ceil(static_cast<double>(g.weight.out_channels) / kBlockFilters);
  if (multiplies_full_blocks(g, plan.tiles->kept, every_kernel))
    planes.full_blocks = selected_kernels().full_blocks;
  const double shares = 2 * (planes.full_blocks > 0 && every_kernel ? kFullShares : kShares);
  const double sets = shares * std::ceil(blocks / std::max(most, 1.0) / shares);
  planes.together = static_cast<int>(std::ceil(blocks / sets));
  if (const int step = planes.full_blocks) planes.together = (planes.together + step - 1) / step * step;
  planes.transform = [size, kernel_h = g.weight.kernel_h, kernel_w = g.weight.kernel_w, stride_h = g.stride_h,
                      stride_w = g.stride_w](const float* taps, float* out) {
    std::vector<float> phase(static_cast<size_t>(size.taps * size.taps));
    for (int64_t phase_y = 0; phase_y < stride_h; ++phase_y) {
      for (int64_t phase_x = 0; phase_x < stride_w; ++phase_x, out += size.planes()) {
        std::fill(phase.begin(), phase.end(), 0.0f);
        for (int64_t y = phase_y; y < kernel_h; y += stride_h)
          for (int64_t x = phase_x; x < kernel_w; x += stride_w)
            phase[static_cast<size_t>(y / stride_h * size.taps + x / stride_w)] = taps[y * kernel_w + x];
        winograd_transform_weight(size, phase.data(), out);
      }
    }
  };
  return planes;
}

int winograd_chunk(const Conv2dGeometry& g, const TilePlan& plan, bool every_kernel) {
  int64_t rows = panel_rows_in_cache(*plan.tiles);
  // Rows stream by as fast from the L2 cache as weights do, and sums are put away less often: 512 channels at
  // once, not 256, are 10% faster at 7x7.
  if (multiplies_full_blocks(g, plan.tiles->kept, every_kernel))
    rows = static_cast<int64_t>(cpu_info().l2_bytes / 8 / sizeof(float)) /
           (plan.tiles->widest * plan.tiles->lanes);
  const int64_t most = std::min<int64_t>(g.in_channels(), 65535 / g.weight.taps());
  return static_cast<int>(std::clamp<int64_t>(rows / (g.stride_h * g.stride_w), 1, most));
}

std::optional<WinogradSize> winograd_size(const Conv2dGeometry& g, int tile) {
  if (g.weight.groups != 1 || g.dilation_h != 1 || g.dilation_w != 1) return std::nullopt;
  const int64_t taps = (g.weight.kernel_h + g.stride_h - 1) / g.stride_h;  // of a phase
  if (taps != (g.weight.kernel_w + g.stride_w - 1) / g.stride_w) return std::nullopt;
  for (const WinogradSize& size : kWinogradSizes)
    if (size.tile == tile && size.taps == taps) return size;
  return std::nullopt;
}

void winograd_conv2d(const Conv2dGeometry& g, const PreparedWeight& weight, const TilePlan& plan,
                     const Conv2dOperands& operands, Parallel& parallel) {
  static thread_local AlignedBuffer copy_buffer;
  const Layer l{g, weight, plan, operands};
  const int64_t (&s)[4] = operands.input.stride;
  const bool strided = l.phases > 1, in_place = !strided && (s[3] == 1 || g.in_w == 1);
  const Phases phases(g);
  const int64_t channel_floats = phases.count * phases.floats;
  const int64_t image_floats = channel_floats * g.in_channels();
  // A copy serves all panels, so images are copied and computed a few at a time.
  const int64_t slab = in_place ? g.batch : images_per_slab(g);
  float* const copy = in_place ? nullptr : copy_buffer.reserve(static_cast<size_t>(slab * image_floats));
  for (int64_t first = 0; first < g.batch; first += slab) {
    const int64_t count = std::min(slab, g.batch - first);
    std::vector<Image> images;
    for (int64_t n = 0; n < count; ++n) {
      if (in_place)
        images.push_back(
            {operands.input.data + (first + n) * s[0], s[1], 0, g.in_h, g.in_w, s[2], g.pad_h, g.pad_w});
      else
        images.push_back({copy + n * image_floats, channel_floats, phases.floats, phases.rows, phases.pitch,
                          phases.pitch, 0, 0});
    }
    if (strided)
      split_images(g, l.rows, operands.input, first, count, {0, phases.rows}, phases.floats, copy, parallel);
    else if (!in_place)
      copy_images(g, l.rows, operands.input, first, count, {0, phases.rows}, channel_floats, copy, parallel);
    if (panels_are_even(plan, count, parallel.threads())) {
      run_panels(l, images.data(), first, count, parallel);
    } else {
      for (int64_t n = 0; n < count; ++n) run_shares(l, images[static_cast<size_t>(n)], first + n, parallel);
    }
  }
}

}  // namespace semisparse
