// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/widened.h"

#include <algorithm>

#include "core/base/aligned.h"

namespace semisparse {
namespace {

// Contiguous values of each of `count` planes.
template <class Convert>
void each_plane(int64_t count, int64_t pixels, Parallel& parallel, Convert convert) {
  const int64_t together = std::max<int64_t>(1, 65536 / pixels), tasks = (count + together - 1) / together;
  parallel.run(tasks, [&](int64_t task) {
    for (int64_t i = task * together; i < std::min((task + 1) * together, count); ++i) convert(i);
  });
}

void widen(const Half* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}

void widen_image(const Conv2dGeometry& g, const BasicConstTensor4<Half>& input, int64_t plane, float* to) {
  const int64_t (&s)[4] = input.stride;
  const Half* from = input.data + plane / g.in_channels() * s[0] + plane % g.in_channels() * s[1];
  for (int64_t y = 0; y < g.in_h; ++y, from += s[2], to += g.in_w) {
    if (s[3] == 1)
      widen(from, g.in_w, to);
    else
      for (int64_t x = 0; x < g.in_w; ++x) to[x] = to_float(from[x * s[3]]);
  }
}

}  // namespace

void widened_conv2d(const Conv2dGeometry& g, const HalfConv2dOperands& o, Parallel& parallel,
                    const std::function<void(const Conv2dGeometry&, const Conv2dOperands&)>& run) {
  static thread_local AlignedBuffer input_buffer, output_buffer, residual_buffer;
  const int64_t in_pixels = g.in_h * g.in_w, image = g.in_channels() * in_pixels;
  const int64_t out_pixels = g.out_h() * g.out_w(), result = g.out_channels() * out_pixels;
  const int64_t bytes = static_cast<int64_t>(sizeof(float)) * (image + result);
  const int64_t together = std::clamp<int64_t>((int64_t{8} << 20) / bytes, 1, std::max<int64_t>(g.batch, 1));
  for (int64_t first = 0; first < g.batch; first += together) {
    Conv2dGeometry part = g;
    part.batch = std::min(together, g.batch - first);
    const int64_t results = part.batch * g.out_channels();
    float* const input = input_buffer.reserve(static_cast<size_t>(part.batch * image));
    float* const output = output_buffer.reserve(static_cast<size_t>(part.batch * result));
    each_plane(part.batch * g.in_channels(), in_pixels, parallel, [&](int64_t i) {
      widen_image(g, o.input, first * g.in_channels() + i, input + i * in_pixels);
    });
    Conv2dOperands floats;
    floats.input = {input, {image, in_pixels, g.in_w, 1}};
    floats.bias = o.bias;
    floats.fill = o.fill;
    floats.activation = o.activation;
    floats.output = output;
    if (o.residual != nullptr) {
      float* const residual = residual_buffer.reserve(static_cast<size_t>(part.batch * result));
      each_plane(results, out_pixels, parallel, [&](int64_t i) {
        widen(o.residual + first * result + i * out_pixels, out_pixels, residual + i * out_pixels);
      });
      floats.residual = residual;
    }
    run(part, floats);
    each_plane(results, out_pixels, parallel, [&](int64_t i) {
      Half* const to = o.output + first * result + i * out_pixels;
      for (int64_t x = 0; x < out_pixels; ++x) to[x] = to_half(output[i * out_pixels + x]);
    });
  }
}

}  // namespace semisparse
