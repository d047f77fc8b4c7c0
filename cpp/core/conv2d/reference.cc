// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/conv2d/conv2d.h"

namespace semisparse {
namespace {

double activate(Activation a, double x) {
  switch (a) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x < 0 ? 0 : x;
    case Activation::relu6:
      return std::min(6.0, x < 0 ? 0 : x);
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::leaky_relu:
      return x < 0 ? 0.01 * x : x;
    case Activation::hardswish:
      return x * std::min(6.0, std::max(0.0, x + 3)) / 6;
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
  }
  return x;
}

}  // namespace

void conv2d_reference(const Conv2dGeometry& g, const float* weight, const uint8_t* mask,
                      const Conv2dOperands& o) {
  g.validate();
  const int64_t oh = g.out_h(), ow = g.out_w(), icg = g.weight.in_channels_per_group;
  const int64_t kh = g.weight.kernel_h, kw = g.weight.kernel_w, ocg = g.out_channels() / g.weight.groups;
  int64_t at = 0;
  for (int64_t n = 0; n < g.batch; ++n) {
    for (int64_t f = 0; f < g.out_channels(); ++f) {
      for (int64_t y = 0; y < oh; ++y) {
        for (int64_t x = 0; x < ow; ++x, ++at) {
          double sum = o.bias != nullptr ? o.bias[f] : 0.0;
          for (int64_t c = 0; c < icg; ++c) {
            for (int64_t i = 0; i < kh; ++i) {
              for (int64_t j = 0; j < kw; ++j) {
                const int64_t iy = y * g.stride_h - g.pad_h + i * g.dilation_h;
                const int64_t ix = x * g.stride_w - g.pad_w + j * g.dilation_w;
                if (iy < 0 || iy >= g.in_h || ix < 0 || ix >= g.in_w) continue;
                const int64_t channel = f / ocg * icg + c;
                const int64_t* s = o.input.stride;
                sum += static_cast<double>(weight[((f * icg + c) * kh + i) * kw + j]) *
                       o.input.data[n * s[0] + channel * s[1] + iy * s[2] + ix * s[3]];
              }
            }
          }
          if (mask != nullptr && mask[y * ow + x] == 0) sum = o.fill != nullptr ? o.fill[f] : 0.0;
          if (o.residual != nullptr) sum += o.residual[at];
          o.output[at] = static_cast<float>(activate(o.activation, sum));
        }
      }
    }
  }
}

}  // namespace semisparse
