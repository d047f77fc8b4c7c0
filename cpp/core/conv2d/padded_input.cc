// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/padded_input.h"

#include <algorithm>
#include <cstring>

namespace semisparse {
namespace {

// channels_last: reads 8 channels of a pixel side by side, so that each cache line of the input is fetched
// once.
constexpr int64_t kChannelBlock = 8;

void copy_row_blocked(const float* from, int64_t stride_c, int64_t stride_w, int64_t width, int64_t count,
                      float* to, int64_t plane) {
  for (int64_t x = 0; x < width; ++x)
    for (int64_t c = 0; c < count; ++c) to[c * plane + x] = from[c * stride_c + x * stride_w];
}

}  // namespace

void copy_padded(const Conv2dGeometry& g, const ConstTensor4& input, int64_t n, int64_t first, int64_t count,
                 float* out) {
  const int64_t w = padded_w(g), plane = padded_plane(g);
  const int64_t *s = input.stride, top = g.pad_h * w;
  const float* image = input.data + n * s[0] + first * s[1];
  const bool rows = s[3] == 1 || g.in_w == 1;
  const int64_t step = rows ? 1 : kChannelBlock;
  for (int64_t c = 0; c < count; c += step) {
    const int64_t block = std::min(step, count - c);
    float* planes = out + c * plane;
    for (int64_t b = 0; b < block; ++b) {
      float* p = planes + b * plane;
      std::fill(p, p + top, 0.0f);
      std::fill(p + plane - top, p + plane, 0.0f);
      if (g.pad_w == 0) continue;
      for (int64_t y = 0; y < g.in_h; ++y) {
        float* row = p + top + y * w;
        std::fill(row, row + g.pad_w, 0.0f);
        std::fill(row + g.pad_w + g.in_w, row + w, 0.0f);
      }
    }
    for (int64_t y = 0; y < g.in_h; ++y) {
      const float* from = image + c * s[1] + y * s[2];
      float* to = planes + top + y * w + g.pad_w;
      if (rows)
        std::memcpy(to, from, sizeof(float) * static_cast<size_t>(g.in_w));
      else
        copy_row_blocked(from, s[1], s[3], g.in_w, block, to, plane);
    }
  }
}

}  // namespace semisparse
