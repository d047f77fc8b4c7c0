// SPDX-License-Identifier: Apache-2.0
// Every kernel set of the registry that this machine can run, against plain loops.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>

#include "core/cpu/isa.h"
#include "core/row_run/row_run.h"
#include "core/testing/random.h"

using namespace semisparse;
using semisparse::testing::Random;

TEST_CASE("gemm: random runs, widths, chunks and bias, for every kernel set") {
  for (const RowRunKernels* kernels : row_run_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->name);
    Random r(23);
    for (int i = 0; i < 300; ++i) {
      const int vectors = static_cast<int>(r.between(1, kernels->max_vectors)),
                width = vectors * kernels->lanes;
      const int rows = static_cast<int>(r.between(0, 90));
      const auto aligned = [&](int64_t n) {
        void* memory = nullptr;
        REQUIRE(posix_memalign(&memory, 64, static_cast<size_t>(n) * 4 + 64) == 0);
        return static_cast<float*>(memory);
      };
      float* panel = aligned(rows * width);
      float* acc = aligned(4 * width);
      for (int k = 0; k < rows * width; ++k) panel[k] = r.normal();
      for (int k = 0; k < 4 * width; ++k) acc[k] = r.normal();
      std::vector<double> want(acc, acc + 4 * width);
      const auto bias = r.normals(4);
      const bool first = r.chance(0.5);
      for (int k = 0; first && k < 4 * width; ++k)
        want[static_cast<size_t>(k)] = bias[static_cast<size_t>(k / width)];

      RunBlock block;
      std::vector<uint16_t> row_list;
      std::vector<float> weights;
      std::vector<int> subset(static_cast<size_t>(rows));
      const bool shared = r.chance(0.3);
      for (int& s : subset) s = shared ? 15 : static_cast<int>(r.between(0, 15));
      for (int o = 0; o < 15; ++o) {
        const int s = run_order()[o];
        for (int k = 0; k < rows; ++k) {
          if (subset[static_cast<size_t>(k)] != s) continue;
          row_list.push_back(static_cast<uint16_t>(k));
          ++block.counts[s];
          if (s != 15) block.counts[0] = 1;
          for (int f = 0; f < 4; ++f) {
            if (!(s >> f & 1)) continue;
            weights.push_back(r.normal());
            for (int x = 0; x < width; ++x)
              want[static_cast<size_t>(f * width + x)] +=
                  static_cast<double>(weights.back()) * panel[k * width + x];
          }
        }
      }
      weights.resize(weights.size() + 4);
      block.rows = row_list.data();
      block.weights = weights.data();
      kernels->gemm(vectors, panel, sizeof(float) * static_cast<size_t>(width), block,
                    first ? bias.data() : nullptr, acc, static_cast<size_t>(width));
      for (int k = 0; k < 4 * width; ++k) CHECK(std::abs(acc[k] - want[static_cast<size_t>(k)]) < 1e-4);
      std::free(panel);
      std::free(acc);
    }
  }
}

TEST_CASE("tail: few columns with filters along the vector equal plain loops, for every kernel set") {
  for (const RowRunKernels* kernels : row_run_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->name);
    Random r(29);
    for (int i = 0; i < 300; ++i) {
      const int columns = static_cast<int>(r.between(1, kernels->max_tail)),
                channels = static_cast<int>(r.between(1, 30));
      const int rows = channels * 2;  // 1x2 kernels, dilation 3
      const auto image = r.normals(channels * 50), bias = r.normals(4);
      std::vector<const float*> planes;
      for (int c = 0; c < channels; ++c) planes.push_back(image.data() + c * 50);
      std::vector<int32_t> offsets;
      for (int j = 0; j < columns; ++j) offsets.push_back(static_cast<int32_t>(r.between(0, 46)));
      const size_t stride = static_cast<size_t>(rows * 4 + kernels->lanes);
      std::vector<float> panel(static_cast<size_t>(columns) * stride, NAN);
      kernels->pack_tail(
          {planes.data(), channels, offsets.data(), columns, 1, 2, 50, 3, panel.data(), stride});
      RunBlock block;
      std::vector<uint16_t> row_list;
      std::vector<float> weights, acc = r.normals(4 * columns);
      const bool first = r.chance(0.5), dense = r.chance(0.6);
      std::vector<double> want(acc.begin(), acc.end()), products(acc.size(), 0.0);
      for (int k = 0; first && k < 4 * columns; ++k)
        want[static_cast<size_t>(k)] = bias[static_cast<size_t>(k / columns)];
      std::vector<int> subset(static_cast<size_t>(rows));
      for (int& s : subset) s = dense ? 15 : static_cast<int>(r.between(0, 15));
      for (int o = 0; o < 15; ++o) {
        const int s = run_order()[o];
        for (int k = 0; k < rows; ++k) {
          if (subset[static_cast<size_t>(k)] != s) continue;
          row_list.push_back(static_cast<uint16_t>(k));
          ++block.counts[s];
          if (s != 15) block.counts[0] = 1;
          for (int f = 0; f < 4; ++f) {
            if (!(s >> f & 1)) continue;
            weights.push_back(r.normal());
            for (int j = 0; j < columns; ++j)
              products[static_cast<size_t>(f * columns + j)] +=
                  static_cast<double>(weights.back()) *
                  planes[static_cast<size_t>(k / 2)][offsets[static_cast<size_t>(j)] + k % 2 * 3];
          }
        }
      }
      for (size_t k = 0; first && k < want.size(); ++k) want[k] += products[k];
      weights.resize(weights.size() + 4);
      block.rows = row_list.data();
      block.weights = weights.data();
      std::vector<float> sums = r.normals(columns * kernels->lanes);
      if (!first) {
        // What an earlier chunk left: any split over the lanes of a filter.
        std::fill(want.begin(), want.end(), 0.0);
        for (int j = 0; j < columns; ++j)
          for (int l = 0; l < kernels->lanes; ++l)
            want[static_cast<size_t>(l % 4 * columns + j)] +=
                sums[static_cast<size_t>(j * kernels->lanes + l)];
        for (size_t k = 0; k < want.size(); ++k) want[k] += products[k];
      }
      kernels->gemm_tail(columns, panel.data(), stride, block, first ? bias.data() : nullptr, sums.data());
      kernels->finish_tail(columns, sums.data(), acc.data(), static_cast<size_t>(columns));
      for (int k = 0; k < 4 * columns; ++k)
        CHECK(std::abs(acc[static_cast<size_t>(k)] - want[static_cast<size_t>(k)]) < 1e-4);
    }
  }
}

TEST_CASE("the registry holds the portable kernels last, with different names") {
  const auto& all = row_run_kernels();
  REQUIRE(!all.empty());
  CHECK(std::string(all.back()->isa) == "scalar");
  for (const auto* a : all)
    for (const auto* b : all) CHECK((a == b || std::string(a->name) != b->name));
}
