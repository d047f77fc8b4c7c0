// SPDX-License-Identifier: Apache-2.0
// Every kernel set of the registry that this machine can run, against plain loops.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/cpu/isa.h"
#include "core/row_run/row_run.h"
#include "core/testing/random.h"

using namespace semisparse;
using semisparse::testing::Random;

namespace {

// A block whose rows have random subsets of filters, in the order that the kernels expect, and what it should
// add: products[f * columns + x] = sum of weights of filter f times value(row, x).
struct RandomBlock {
  RunBlock block;
  std::vector<uint16_t> rows;
  std::vector<float> weights;
  std::vector<double> products;

  template <class Value>
  RandomBlock(Random& r, int row_count, int columns, double all_four, Value&& value)
      : products(static_cast<size_t>(4 * columns), 0.0) {
    std::vector<int> subset(static_cast<size_t>(row_count));
    const bool shared = r.chance(all_four);
    for (int& s : subset) s = shared ? 15 : static_cast<int>(r.between(0, 15));
    for (int o = 0; o < 15; ++o) {
      const int s = run_order()[o];
      for (int k = 0; k < row_count; ++k) {
        if (subset[static_cast<size_t>(k)] != s) continue;
        rows.push_back(static_cast<uint16_t>(k));
        ++block.counts[s];
        if (s != 15) block.counts[0] = 1;
        for (int f = 0; f < 4; ++f) {
          if (!(s >> f & 1)) continue;
          weights.push_back(r.normal());
          for (int x = 0; x < columns; ++x)
            products[static_cast<size_t>(f * columns + x)] +=
                static_cast<double>(weights.back()) * value(k, x);
        }
      }
    }
    weights.resize(weights.size() + 4);  // kernels may read four
    block.rows = rows.data();
    block.weights = weights.data();
  }
  RandomBlock(const RandomBlock&) = delete;
};

struct Free {
  void operator()(float* p) const { std::free(p); }
};

std::unique_ptr<float, Free> aligned_normals(Random& r, int64_t n) {
  void* memory = nullptr;
  REQUIRE(posix_memalign(&memory, 64, static_cast<size_t>(n) * 4 + 64) == 0);
  float* p = static_cast<float*>(memory);
  for (int64_t i = 0; i < n; ++i) p[i] = r.normal();
  return std::unique_ptr<float, Free>(p);
}

}  // namespace

TEST_CASE("gemm: random runs, widths, chunks and bias, for every kernel set") {
  for (const RowRunKernels* kernels : row_run_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->name);
    Random r(23);
    for (int i = 0; i < 300; ++i) {
      const int vectors = static_cast<int>(r.between(1, kernels->max_vectors)),
                width = vectors * kernels->lanes;
      const int rows = static_cast<int>(r.between(0, 90));
      const auto panel = aligned_normals(r, rows * width), acc = aligned_normals(r, 4 * width);
      const auto bias = r.normals(4);
      const bool first = r.chance(0.5);
      const RandomBlock b(r, rows, width, 0.3, [&](int row, int x) { return panel.get()[row * width + x]; });
      std::vector<double> want = b.products;
      for (int k = 0; k < 4 * width; ++k)
        want[static_cast<size_t>(k)] += first ? bias[static_cast<size_t>(k / width)] : acc.get()[k];
      kernels->gemm(vectors, panel.get(), b.block, first ? bias.data() : nullptr, acc.get(),
                    static_cast<size_t>(width));
      for (int k = 0; k < 4 * width; ++k) CHECK(std::abs(acc.get()[k] - want[static_cast<size_t>(k)]) < 1e-4);
    }
  }
}

TEST_CASE("gemm_full: blocks that use every row of a panel, for every kernel set that has it") {
  for (const RowRunKernels* kernels : row_run_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CHECK((kernels->gemm_full == nullptr) == (kernels->full_blocks == 0));
    if (kernels->gemm_full == nullptr) continue;
    CAPTURE(kernels->name);
    Random r(29);
    const int filters = kernels->full_blocks * kBlockFilters, lanes = kernels->lanes;
    for (int i = 0; i < 100; ++i) {
      const int rows = static_cast<int>(r.between(0, r.chance(0.3) ? 300 : 70)),
                stride = lanes * static_cast<int>(r.between(1, 4)),
                columns = static_cast<int>(r.between(1, stride));
      const auto panel = aligned_normals(r, rows * stride), acc = aligned_normals(r, filters * stride);
      const auto weights = r.normals(rows * filters + 1);
      const bool start = r.chance(0.5);
      CAPTURE(rows);
      CAPTURE(columns);
      std::vector<double> want(acc.get(), acc.get() + filters * stride);
      for (int f = 0; f < filters; ++f)
        for (int x = 0; x < columns; ++x) {
          double& sum = want[static_cast<size_t>(f * stride + x)];
          if (start) sum = 0;
          for (int row = 0; row < rows; ++row)
            sum += double{panel.get()[row * stride + x]} *
                   double{weights[static_cast<size_t>((f / lanes * rows + row) * lanes + f % lanes)]};
        }
      kernels->gemm_full(columns, panel.get(), static_cast<size_t>(rows), weights.data(), start, acc.get(),
                         static_cast<size_t>(stride));
      for (int k = 0; k < filters * stride; ++k)
        if (k % stride < columns)  // the rest of a row may hold anything
          CHECK(std::abs(acc.get()[k] - want[static_cast<size_t>(k)]) < 1e-4);
    }
  }
}

TEST_CASE("gemm_direct: rows read in place equal packed rows, for every kernel set") {
  for (const RowRunKernels* kernels : row_run_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->name);
    Random r(31);
    for (int i = 0; i < 200; ++i) {
      const int vectors = static_cast<int>(r.between(1, kernels->max_vectors)), lanes = kernels->lanes;
      const int width = vectors * lanes, rows = static_cast<int>(r.between(0, 90));
      const auto image = r.normals(4000), bias = r.normals(4);
      std::vector<uint32_t> offsets;  // of the rows of the block, whether it uses them or not
      for (int k = 0; k < rows; ++k) offsets.push_back(static_cast<uint32_t>(4 * r.between(0, 1900)));
      const bool in_parts = r.chance(0.7);  // vectors side by side but for one, if any
      const int64_t second = r.between(0, vectors);
      std::vector<int64_t> at;
      std::vector<const float*> starts;
      for (int v = 0; v < vectors; ++v) {
        at.push_back(in_parts && v > 0 && v != second ? at.back() + lanes : r.between(0, 2000 - width));
        starts.push_back(image.data() + at.back());
      }
      const bool first = r.chance(0.5);
      const auto acc = aligned_normals(r, 4 * width);
      const RandomBlock b(r, rows, width, 0.3, [&](int row, int x) {
        return image[static_cast<size_t>(at[static_cast<size_t>(x / lanes)] + x % lanes +
                                         offsets[static_cast<size_t>(row)] / 4)];
      });
      std::vector<double> want = b.products;
      for (int k = 0; k < 4 * width; ++k)
        want[static_cast<size_t>(k)] += first ? bias[static_cast<size_t>(k / width)] : acc.get()[k];
      std::vector<uint32_t> row_offsets;
      for (const uint16_t row : b.rows) row_offsets.push_back(offsets[row]);
      kernels->gemm_direct(vectors, starts.data(), row_offsets.data(), b.block, first ? bias.data() : nullptr,
                           acc.get(), static_cast<size_t>(width));
      for (int k = 0; k < 4 * width; ++k) CHECK(std::abs(acc.get()[k] - want[static_cast<size_t>(k)]) < 1e-4);
    }
  }
}

TEST_CASE("split: every pixel of a padded plane lies in its phase, the rest is zero, for every kernel set") {
  for (const RowRunKernels* kernels : row_run_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->name);
    Random r(37);
    for (int i = 0; i < 200; ++i) {
      SplitArgs<float> a{};
      a.height = r.between(1, 12);
      a.width = r.between(1, 60);
      a.pad_h = r.between(0, 3);
      a.pad_w = r.between(0, 3);
      a.stride_y = r.between(1, 4);
      a.stride_x = r.between(1, 4);
      a.rows = (a.height + 2 * a.pad_h + a.stride_y - 1) / a.stride_y;
      a.pitch = (a.width + 2 * a.pad_w + a.stride_x - 1) / a.stride_x;
      a.phase_floats = a.rows * a.pitch;
      const bool transposed = r.chance(0.3);
      a.stride_h = transposed ? 1 : a.width;
      a.stride_w = transposed ? a.height : 1;
      const auto image = r.normals(a.height * a.width);
      const int64_t floats = a.stride_y * a.stride_x * a.phase_floats;
      std::vector<float> out(static_cast<size_t>(floats + 1), NAN),
          line(static_cast<size_t>(a.pitch * a.stride_x + 2 * kernels->lanes));
      a.in = image.data();
      a.out = out.data();
      a.line = line.data();
      kernels->split(a);
      for (int64_t y = 0; y < a.rows * a.stride_y; ++y)
        for (int64_t x = 0; x < a.pitch * a.stride_x; ++x) {
          const int64_t from_y = y - a.pad_h, from_x = x - a.pad_w;
          const bool inside = from_y >= 0 && from_y < a.height && from_x >= 0 && from_x < a.width;
          const int64_t phase = y % a.stride_y * a.stride_x + x % a.stride_x;
          const float got =
              out[static_cast<size_t>(phase * a.phase_floats + y / a.stride_y * a.pitch + x / a.stride_x)];
          CHECK(got ==
                (inside ? image[static_cast<size_t>(from_y * a.stride_h + from_x * a.stride_w)] : 0.0f));
        }
      CHECK(std::isnan(out.back()));
    }
  }
}

TEST_CASE("pad: rows lie in the middle of zeros and nothing past them is written, for every kernel set") {
  for (const RowRunKernels* kernels : row_run_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->name);
    Random r(41);
    for (int i = 0; i < 300; ++i) {
      PadArgs<float> a{};
      a.height = r.between(1, 9);
      a.width = r.between(1, 230);
      a.pad_h = r.between(0, 3);
      a.pad_w = r.between(0, 10);
      a.first_row = r.between(0, a.height + 2 * a.pad_h - 1);
      a.last_row = r.between(a.first_row + 1, a.height + 2 * a.pad_h);
      const bool transposed = r.chance(0.2);
      a.stride_h = transposed ? 1 : a.width + r.between(0, 3);
      a.stride_w = transposed ? a.height : 1;
      const int64_t plane = std::max(a.height * a.stride_h, a.height * a.width);
      const auto image = r.normals(2 * plane);
      a.in = image.data();
      if (r.chance(0.5)) a.next = image.data() + plane;
      const int64_t pitch = a.width + 2 * a.pad_w, floats = (a.last_row - a.first_row) * pitch;
      std::vector<float> out(static_cast<size_t>(floats + 1), NAN);
      a.out = out.data();
      kernels->pad(a);
      for (int64_t at = 0; at < floats; ++at) {
        const int64_t y = a.first_row + at / pitch - a.pad_h, x = at % pitch - a.pad_w;
        const bool inside = y >= 0 && y < a.height && x >= 0 && x < a.width;
        CHECK(out[static_cast<size_t>(at)] ==
              (inside ? image[static_cast<size_t>(y * a.stride_h + x * a.stride_w)] : 0.0f));
      }
      CHECK(std::isnan(out.back()));
    }
  }
}

TEST_CASE("tail: few columns with filters along the vector equal plain loops, for every kernel set") {
  for (const RowRunKernels* kernels : row_run_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->name);
    Random r(29);
    for (int i = 0; i < 300; ++i) {
      const int columns = static_cast<int>(r.between(1, kernels->max_tail));
      const int channels = static_cast<int>(r.between(1, 30)),
                rows = channels * 2;  // 1x2 kernels, dilation 3
      const auto image = r.normals(channels * 50), bias = r.normals(4);
      std::vector<const float*> planes;
      for (int c = 0; c < channels; ++c) planes.push_back(image.data() + c * 50);
      std::vector<int32_t> offsets;
      for (int j = 0; j < columns; ++j) offsets.push_back(static_cast<int32_t>(r.between(0, 46)));
      const size_t stride = static_cast<size_t>(rows * 4 + kernels->lanes);
      std::vector<float> panel(static_cast<size_t>(columns) * stride, NAN);
      kernels->pack_tail(
          {planes.data(), channels, offsets.data(), columns, 1, 2, 50, 3, panel.data(), stride});

      const bool first = r.chance(0.5);
      const RandomBlock b(r, rows, columns, 0.6, [&](int row, int j) {
        return planes[static_cast<size_t>(row / 2)][offsets[static_cast<size_t>(j)] + row % 2 * 3];
      });
      // What an earlier chunk left: any split over the lanes of a filter.
      std::vector<float> sums = r.normals(columns * kernels->lanes);
      std::vector<double> want = b.products;
      for (int j = 0; j < columns; ++j) {
        for (int l = 0; !first && l < kernels->lanes; ++l)
          want[static_cast<size_t>(l % 4 * columns + j)] += sums[static_cast<size_t>(j * kernels->lanes + l)];
        for (int f = 0; first && f < 4; ++f)
          want[static_cast<size_t>(f * columns + j)] += bias[static_cast<size_t>(f)];
      }
      kernels->gemm_tail(columns, panel.data(), stride, b.block, first ? bias.data() : nullptr, sums.data());
      std::vector<float> got(want.size(), NAN);
      kernels->finish_tail(columns, sums.data(), got.data(), static_cast<size_t>(columns));
      for (size_t k = 0; k < want.size(); ++k) CHECK(std::abs(got[k] - want[k]) < 1e-4);
    }
  }
}

TEST_CASE("gemm in half precision: sums of a chunk are rounded in half precision, what they add to is not") {
  for (const HalfKernels* kernels : half_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->name);
    Random r(41);
    for (int i = 0; i < 300; ++i) {
      const int vectors = static_cast<int>(r.between(1, kernels->max_vectors)),
                width = vectors * kernels->lanes, rows = static_cast<int>(r.between(0, 90));
      std::vector<Half> panel;
      for (int k = 0; k < rows * width; ++k) panel.push_back(to_half(r.normal()));
      // Far larger than the products: what is lost if these are added in half precision.
      std::vector<float> acc = r.normals(4 * width), bias = r.normals(4);
      for (float& x : acc) x *= 1e4f;
      for (float& x : bias) x *= 1e4f;
      const bool first = r.chance(0.5);
      const RandomBlock b(r, rows, width, 0.3, [&](int row, int x) {
        return to_float(panel[static_cast<size_t>(row * width + x)]);
      });
      std::vector<double> want = b.products;
      for (int k = 0; k < 4 * width; ++k)
        want[static_cast<size_t>(k)] +=
            first ? bias[static_cast<size_t>(k / width)] : acc[static_cast<size_t>(k)];
      kernels->gemm(vectors, panel.data(), b.block, first ? bias.data() : nullptr, acc.data(),
                    static_cast<size_t>(width));
      for (int k = 0; k < 4 * width; ++k)
        CHECK(std::abs(acc[static_cast<size_t>(k)] - want[static_cast<size_t>(k)]) < 0.2);
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
