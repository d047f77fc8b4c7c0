// SPDX-License-Identifier: Apache-2.0
// Max pooling of layers of real networks in one thread, on every instruction set of this machine:
// milliseconds, best of many, and input bytes a second.
//   bench_max_pool
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "core/base/aligned.h"
#include "core/cpu/isa.h"
#include "core/max_pool/kernels.h"
#include "core/testing/random.h"

using namespace semisparse;

int main() {
  struct Layer {
    const char* name;
    int64_t channels, size, kernel, stride, pad;
  };
  const Layer layers[] = {{"ResNet stem", 64, 112, 3, 2, 1},
                          {"VGG", 64, 112, 2, 2, 0},
                          {"YOLO SPPF", 256, 20, 5, 1, 2},
                          {"stride 3", 64, 112, 3, 3, 0}};
  testing::Random random(1);
  for (const Layer& l : layers) {
    MaxPool2dGeometry g;
    g.channels = l.channels;
    g.in_h = g.in_w = l.size;
    g.kernel_h = g.kernel_w = l.kernel;
    g.stride_h = g.stride_w = l.stride;
    g.pad_h = g.pad_w = l.pad;
    const int64_t plane = l.size * l.size, out_plane = g.out_h() * g.out_w();
    const auto in = random.normals(l.channels * plane);
    std::vector<float> out(static_cast<size_t>(l.channels * out_plane));
    AlignedBuffer scratch;
    for (const MaxPoolKernels* kernels : max_pool_kernels()) {
      if (!isa_supported(kernels->isa)) continue;
      const int64_t row = max_pool_row(g, kernels->lanes), rows = max_pool_rows(row);
      float* const memory = scratch.reserve(static_cast<size_t>((rows + 1) * row));
      double best = 1e9;
      for (int repeat = 0; repeat < 200; ++repeat) {
        const auto start = std::chrono::steady_clock::now();
        for (int64_t c = 0; c < l.channels; ++c)
          kernels->pool({&g, in.data() + c * plane, l.size, 0, g.out_h(), g.out_w(), row, rows, memory,
                         out.data() + c * out_plane});
        best =
            std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
      std::printf("%-12s %4ld x %3ld x %3ld  kernel %ld stride %ld  %-7s %8.4f ms  %6.1f GB/s\n", l.name,
                  static_cast<long>(l.channels), static_cast<long>(l.size), static_cast<long>(l.size),
                  static_cast<long>(l.kernel), static_cast<long>(l.stride), kernels->isa, best * 1e3,
                  4e-9 * static_cast<double>(l.channels * plane) / best);
    }
  }
}
