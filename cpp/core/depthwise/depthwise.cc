// SPDX-License-Identifier: Apache-2.0
#include "core/depthwise/depthwise.h"

#include <algorithm>
#include <vector>

#include "core/base/aligned.h"

namespace semisparse {
namespace {

// Output pixels in a task: enough to be worth handing out.
constexpr int64_t kTaskPixels = 32768;
// Where neighbouring pixels do not lie side by side, channels_last above all: so many channels of a pixel at
// once, so that each cache line of the input is fetched once.
constexpr int64_t kChannelBlock = 16;

// For each output row and vector of it, which pixels are computed.
std::vector<uint32_t> mask_bits(const Conv2dGeometry& g, const uint8_t* mask, int64_t lanes) {
  const int64_t height = g.out_h(), width = g.out_w(), vectors = (width + lanes - 1) / lanes;
  std::vector<uint32_t> bits(static_cast<size_t>(height * vectors), 0);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      if (mask[y * width + x] != 0) bits[static_cast<size_t>(y * vectors + x / lanes)] |= 1u << x % lanes;
  return bits;
}

// copy for pixels that lie apart: `channels` planes at once, `plane` elements each.
void copy_strided(const Conv2dGeometry& g, const DepthwiseLayout& layout, const float* in,
                  const int64_t (&s)[4], int64_t channels, int64_t first_row, int64_t last_row, int64_t plane,
                  float* out) {
  std::fill(out, out + channels * plane, 0.0f);
  for (int64_t row = std::max(first_row, g.pad_h); row < std::min(last_row, g.pad_h + g.in_h); ++row) {
    for (int64_t x = 0; x < g.in_w; ++x) {
      const int64_t q = g.pad_w + x;
      const float* from = in + (row - g.pad_h) * s[2] + x * s[3];
      float* to = out + (row - first_row) * layout.row + q % g.stride_w * layout.phase + q / g.stride_w;
      for (int64_t c = 0; c < channels; ++c) to[c * plane] = from[c * s[1]];
    }
  }
}

}  // namespace

bool depthwise_applies(const Conv2dGeometry& g) {
  return g.weight.in_channels_per_group == 1 && g.weight.groups > 1;
}

bool depthwise_in_place(const Conv2dGeometry& g, int lanes) {
  // Wide rows of stride 1 gain nothing with 16 registers.
  const bool narrow = g.stride_w == 2 || g.out_w() <= 4 * lanes;
  const int64_t kernel = g.weight.kernel_h;
  return (kernel == 3 || kernel == 5) && g.weight.kernel_w == kernel && g.dilation_h * g.dilation_w == 1 &&
         g.stride_h == g.stride_w && g.stride_h <= 2 && narrow;
}

DepthwiseLayout depthwise_layout(const Conv2dGeometry& g, int lanes) {
  const int64_t reach = g.dilation_w * (g.weight.kernel_w - 1) / g.stride_w + 1;
  const int64_t read = (g.out_w() + lanes - 1) / lanes * lanes + reach;
  const int64_t phase = std::max(read, (g.in_w + 2 * g.pad_w + g.stride_w - 1) / g.stride_w);
  return {phase, phase * g.stride_w};
}

void depthwise_conv2d(const Conv2dGeometry& g, const float* weight, const uint8_t* mask,
                      const Conv2dOperands& o, Parallel& parallel, const DepthwiseKernels& kernels) {
  const int64_t channels = g.in_channels(), multiplier = g.out_channels() / channels;
  const int64_t out_h = g.out_h(), out_w = g.out_w(), pixels = out_h * out_w;
  const int64_t reach_h = g.dilation_h * (g.weight.kernel_h - 1) + 1;
  const DepthwiseLayout layout = depthwise_layout(g, kernels.lanes);
  const std::vector<uint32_t> bits =
      mask != nullptr ? mask_bits(g, mask, kernels.lanes) : std::vector<uint32_t>();
  const int64_t (&s)[4] = o.input.stride;
  const bool strided = s[3] != 1 && g.in_w > 1;
  const bool in_place = !strided && kernels.plane_in_place != nullptr && depthwise_in_place(g, kernels.lanes);

  // Tasks are groups of channels or, of large planes, bands of output rows.
  const int64_t bands = std::clamp<int64_t>(pixels * multiplier / kTaskPixels, 1, out_h);
  int64_t together = std::clamp<int64_t>(kTaskPixels / (pixels * multiplier), 1, channels);
  if (strided) together = std::min((together + kChannelBlock - 1) / kChannelBlock * kChannelBlock, channels);
  const int64_t blocks = (channels + together - 1) / together;
  parallel.run(g.batch * blocks * bands, [&](int64_t task) {
    static thread_local AlignedBuffer buffer;
    const int64_t band = task % bands, block = task / bands % blocks, n = task / bands / blocks;
    const int64_t first = out_h * band / bands, last = out_h * (band + 1) / bands;
    const int64_t first_row = first * g.stride_h, last_row = (last - 1) * g.stride_h + reach_h;
    const int64_t plane = (last_row - first_row) * layout.row, step = strided ? kChannelBlock : 1;
    float* const rows = in_place ? nullptr : buffer.reserve(static_cast<size_t>(step * plane));
    const int64_t end = std::min((block + 1) * together, channels);
    for (int64_t begin = block * together; begin < end; begin += step) {
      const int64_t count = std::min(step, end - begin);
      const float* const in = o.input.data + n * s[0] + begin * s[1];
      if (strided)
        copy_strided(g, layout, in, s, count, first_row, last_row, plane, rows);
      else if (!in_place)
        kernels.copy({&g, layout, in, s[2], first_row, last_row, rows});
      for (int64_t k = 0; k < count * multiplier; ++k) {
        const int64_t channel = begin * multiplier + k, at = (n * g.out_channels() + channel) * pixels;
        DepthwiseArgs args;
        args.geometry = &g;
        args.layout = layout;
        args.in = in_place ? in : rows + k / multiplier * plane;
        args.stride_h = s[2];
        args.first = first;
        args.last = last;
        args.out_w = out_w;
        args.weight = weight + channel * g.weight.taps();
        args.bias = o.bias != nullptr ? o.bias[channel] : 0.0f;
        args.fill = o.fill != nullptr ? o.fill[channel] : 0.0f;
        args.mask = mask != nullptr ? bits.data() : nullptr;
        args.residual = o.residual != nullptr ? o.residual + at : nullptr;
        args.output = o.output + at;
        args.activation = o.activation;
        (in_place ? kernels.plane_in_place : kernels.plane)(args);
      }
    }
  });
}

}  // namespace semisparse
