// SPDX-License-Identifier: Apache-2.0
// Depthwise layers of MobileNetV2 and of EfficientNet-like networks in one thread, on every instruction set
// of this machine: milliseconds, best of many, and GFLOP/s.
//   bench_depthwise
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "core/cpu/isa.h"
#include "core/depthwise/depthwise.h"
#include "core/testing/random.h"

using namespace semisparse;

int main() {
  const int64_t layers[][4] = {{32, 112, 3, 1}, {96, 112, 3, 2}, {144, 56, 3, 1},
                               {192, 28, 3, 1}, {384, 14, 3, 1}, {576, 14, 3, 2},
                               {960, 7, 3, 1},  {240, 28, 5, 1}, {240, 28, 5, 2}};
  testing::Random random(1);
  Serial serial;
  for (const auto& l : layers) {
    Conv2dGeometry g;
    g.weight = {l[0], 1, l[2], l[2], l[0]};
    g.in_h = g.in_w = l[1];
    g.stride_h = g.stride_w = l[3];
    g.pad_h = g.pad_w = l[2] / 2;
    const auto input = random.normals(l[0] * l[1] * l[1]), weight = random.normals(g.weight.elements());
    std::vector<float> out(static_cast<size_t>(l[0] * g.out_h() * g.out_w()));
    Conv2dOperands o;
    o.input = {input.data(), {0, l[1] * l[1], l[1], 1}};
    o.output = out.data();
    o.activation = Activation::relu6;
    for (const DepthwiseKernels* kernels : depthwise_kernels()) {
      if (!isa_supported(kernels->isa)) continue;
      double best = 1e9;
      for (int repeat = 0; repeat < 100; ++repeat) {
        const auto start = std::chrono::steady_clock::now();
        depthwise_conv2d(g, weight.data(), nullptr, o, serial, *kernels);
        best =
            std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
      std::printf("%4ld @%-3ld kernel %ld stride %ld  %-7s %8.4f ms  %6.1f GFLOP/s\n",
                  static_cast<long>(l[0]), static_cast<long>(l[1]), static_cast<long>(l[2]),
                  static_cast<long>(l[3]), kernels->isa, best * 1e3,
                  2e-9 * static_cast<double>(g.out_h() * g.out_w() * g.weight.elements()) / best);
    }
  }
}
