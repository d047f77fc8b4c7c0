// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/padded_input.h"

#include <algorithm>

namespace semisparse {
namespace {

// Any strides, channels_last above all: so many channels of a pixel side by side, so that each cache line of
// the input is fetched once.
constexpr int64_t kChannelBlock = 8;

void copy_strided(const Conv2dGeometry& g, const float* in, const int64_t (&s)[4], int64_t channels,
                  float* out) {
  const int64_t w = padded_w(g), plane = padded_plane(g);
  std::fill(out, out + channels * plane, 0.0f);
  for (int64_t y = 0; y < g.in_h; ++y) {
    const float* from = in + y * s[2];
    float* to = out + (y + g.pad_h) * w + g.pad_w;
    for (int64_t x = 0; x < g.in_w; ++x)
      for (int64_t c = 0; c < channels; ++c) to[c * plane + x] = from[c * s[1] + x * s[3]];
  }
}

}  // namespace

void copy_padded(const Conv2dGeometry& g, const RowRunKernels& kernels, const ConstTensor4& input, int64_t n,
                 int64_t first, int64_t count, float* out) {
  const int64_t plane = padded_plane(g);
  const int64_t (&s)[4] = input.stride;
  const float* image = input.data + n * s[0] + first * s[1];
  if (s[3] == 1 || g.in_w == 1) {
    for (int64_t c = 0; c < count; ++c)
      kernels.pad({image + c * s[1], g.in_h, g.in_w, s[2], g.pad_h, g.pad_w, padded_w(g), out + c * plane});
    return;
  }
  for (int64_t c = 0; c < count; c += kChannelBlock)
    copy_strided(g, image + c * s[1], s, std::min(kChannelBlock, count - c), out + c * plane);
}

}  // namespace semisparse
