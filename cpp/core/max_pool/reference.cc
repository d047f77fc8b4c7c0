// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "core/max_pool/max_pool.h"

namespace semisparse {

void max_pool2d_reference(const MaxPool2dGeometry& g, const ConstTensor4& input, float* output) {
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t c = 0; c < g.channels; ++c)
      for (int64_t oy = 0; oy < g.out_h(); ++oy)
        for (int64_t ox = 0; ox < g.out_w(); ++ox) {
          float most = -std::numeric_limits<float>::infinity();
          for (int64_t ky = 0; ky < g.kernel_h; ++ky)
            for (int64_t kx = 0; kx < g.kernel_w; ++kx) {
              const int64_t y = oy * g.stride_h - g.pad_h + ky * g.dilation_h;
              const int64_t x = ox * g.stride_w - g.pad_w + kx * g.dilation_w;
              if (y < 0 || y >= g.in_h || x < 0 || x >= g.in_w) continue;
              const int64_t (&s)[4] = input.stride;
              const float value = input.data[n * s[0] + c * s[1] + y * s[2] + x * s[3]];
              if (value > most || std::isnan(value)) most = value;
            }
          *output++ = most;
        }
}

}  // namespace semisparse
