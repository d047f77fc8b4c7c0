// SPDX-License-Identifier: Apache-2.0
// Linear layers of real networks in one thread: milliseconds (median), and bytes of weights read a second,
// for several kinds of sparsity and numbers of rows.
//   bench_linear [most rows]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "core/linear/kernels.h"
#include "core/linear/linear.h"
#include "core/linear/prepare.h"
#include "core/testing/random.h"

using namespace semisparse;

int main(int argc, char** argv) {
  const int64_t most = argc > 1 ? std::atoi(argv[1]) : 8;
  struct Kind {
    const char* name;
    double kept;
    int64_t block;  // features that share their inputs
  };
  const Kind kinds[] = {{"dense", 1, 1},
                        {"unstructured 0.5", 0.5, 1},
                        {"unstructured 0.8", 0.2, 1},
                        {"unstructured 0.9", 0.1, 1},
                        {"blocks of 8, 0.8", 0.2, 8},
                        {"blocks of 16, 0.8", 0.2, 16}};
  testing::Random random(1);
  Serial serial;
  std::printf("%s\n", selected_linear_kernels().isa);
  for (const auto& size : {std::make_pair<int64_t, int64_t>(512, 1000), {2048, 1000}, {4096, 4096}}) {
    for (const Kind& kind : kinds) {
      const WeightShape shape{size.second, size.first, 1, 1, 1};
      auto w = random.normals(shape.elements());
      for (int64_t o = 0; o < size.second; o += kind.block)
        for (int64_t i = 0; i < size.first; ++i)
          if (!random.chance(kind.kept))
            for (int64_t k = o; k < std::min(o + kind.block, size.second); ++k)
              w[static_cast<size_t>(k * size.first + i)] = 0;
      const auto packed = pack_weight(w.data(), shape);
      const size_t bytes = prepare_linear(packed.data(), packed.size(), selected_linear_kernels())->bytes;
      LinearWeight weight;
      std::printf("%ld -> %ld  %-18s %6.2f MB ", static_cast<long>(size.first),
                  static_cast<long>(size.second), kind.name, static_cast<double>(bytes) * 1e-6);
      for (int64_t rows = argc > 2 ? std::atoi(argv[2]) : 1; rows <= most; rows *= 2) {
        const auto x = random.normals(rows * size.first);
        std::vector<float> y(static_cast<size_t>(rows * size.second));
        LinearOperands o;
        o.input = x.data();
        o.row_stride = size.first;
        o.output = y.data();
        std::vector<double> times;
        for (int repeat = 0; repeat < 60; ++repeat) {
          const auto start = std::chrono::steady_clock::now();
          linear({rows, size.first, size.second}, weight, packed.data(), packed.size(), o, serial);
          times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        std::nth_element(times.begin(), times.begin() + 30, times.end());
        std::printf(" %3ld: %.4f ms %5.1f GB/s", static_cast<long>(rows), times[30] * 1e3,
                    static_cast<double>(bytes) * 1e-9 / times[30]);
      }
      std::printf("\n");
    }
  }
}
