// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "core/arrays/arrays.h"
#include "core/arrays/kernels.h"
#include "core/base/error.h"
#include "core/cpu/isa.h"
#include "core/testing/random.h"

using namespace semisparse;
using semisparse::testing::poisoned;
using semisparse::testing::Random;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr Arithmetic kArithmetic[] = {Arithmetic::add, Arithmetic::subtract, Arithmetic::multiply,
                                      Arithmetic::divide};

double reference(Arithmetic op, double a, double b) {
  return op == Arithmetic::add        ? a + b
         : op == Arithmetic::subtract ? a - b
         : op == Arithmetic::multiply ? a * b
                                      : a / b;
}

double reference(Activation activation, double x) {
  const double gate = std::clamp(x + 3, 0.0, 6.0) / 6, logistic = 1 / (1 + std::exp(-x));
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::relu6:
      return std::clamp(x, 0.0, 6.0);
    case Activation::silu:
      return x * logistic;
    case Activation::leaky_relu:
      return x > 0 ? x : 0.01 * x;
    case Activation::hardswish:
      return x * gate;
    default:
      return logistic;
  }
}

bool close(float found, double expected) {
  return std::abs(found - expected) <= 2e-6 * (1 + std::abs(expected));
}

// An array in random memory: any strides, of any sign, with room between its elements.
struct Array {
  std::vector<float> memory;
  std::vector<int64_t> strides;
  int64_t first = 0;

  Array(Random& r, const std::vector<int64_t>& sizes, bool broadcast) : strides(sizes.size()) {
    std::vector<size_t> order(sizes.size());
    std::iota(order.begin(), order.end(), size_t{0});
    if (r.chance(0.3))
      for (size_t i = 1; i < order.size(); ++i)
        std::swap(order[i], order[static_cast<size_t>(r.between(0, static_cast<int64_t>(i)))]);
    int64_t extent = 1;
    for (size_t i = order.size(); i-- > 0;) {
      const size_t d = order[i];
      if (broadcast && r.chance(0.3)) continue;
      const int64_t gap = r.chance(0.2) ? 2 : 1;
      strides[d] = extent * gap;
      extent = strides[d] * sizes[d];
      if (r.chance(0.1)) {
        first += strides[d] * (sizes[d] - 1);
        strides[d] = -strides[d];
      }
    }
    memory = r.normals(std::max<int64_t>(extent, 1));
  }
  float* start() { return memory.data() + first; }
};

// Calls visit(index) for every index.
template <class Visit>
void for_each_index(const std::vector<int64_t>& sizes, Visit visit) {
  std::vector<int64_t> index(sizes.size(), 0);
  for (int64_t left = std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>()); left > 0;
       --left) {
    visit(index);
    for (size_t d = sizes.size(); d-- > 0;) {
      if (++index[d] < sizes[d]) break;
      index[d] = 0;
    }
  }
}

int64_t offset(const std::vector<int64_t>& index, const std::vector<int64_t>& strides) {
  return std::inner_product(index.begin(), index.end(), strides.begin(), int64_t{0});
}

std::vector<int64_t> contiguous(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t extent = 1;
  for (size_t d = sizes.size(); d-- > 0; extent *= sizes[d]) strides[d] = extent;
  return strides;
}

std::vector<int64_t> random_sizes(Random& r) {
  std::vector<int64_t> sizes(static_cast<size_t>(r.between(0, 4)));
  for (int64_t& size : sizes) size = r.one_of<int64_t>({1, 1, 2, 3, 5, 8, 17, r.chance(0.1) ? 300 : 4});
  if (!sizes.empty() && r.chance(0.03)) sizes[0] = 0;
  return sizes;
}

int64_t product(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

TEST_CASE("Every array kernel against plain loops, every length, not a float too far") {
  Random r(1);
  for (const ArrayKernels* kernels : array_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->isa);
    int64_t wrong = 0;
    for (int64_t n = 1; n <= 100; ++n) {
      const auto size = static_cast<size_t>(n);
      auto a = r.normals(n), b = r.normals(n);
      for (float& x : a) x *= 5;
      auto out = poisoned(n + 1);
      for (const Activation activation :
           {Activation::none, Activation::relu, Activation::relu6, Activation::silu, Activation::leaky_relu,
            Activation::hardswish, Activation::sigmoid}) {
        kernels->activate(activation, a.data(), n, out.data());
        for (size_t i = 0; i < size; ++i) wrong += !close(out[i], reference(activation, a[i]));
      }
      for (const Arithmetic op : kArithmetic)
        for (const int64_t a_step : {0, 1})
          for (const int64_t b_step : {0, 1}) {
            kernels->combine(op, a.data(), a_step, b.data(), b_step, n, out.data());
            for (size_t i = 0; i < size; ++i)
              wrong += !close(out[i], reference(op, a_step ? a[i] : a[0], b_step ? b[i] : b[0]));
          }
      wrong += !close(kernels->sum(a.data(), n), std::accumulate(a.begin(), a.end(), 0.0));
      CHECK(std::isnan(out[size]));
      auto pairs = poisoned(2 * n + 1);
      kernels->repeat2(a.data(), n, pairs.data());
      for (size_t i = 0; i < 2 * size; ++i) wrong += pairs[i] != a[i / 2];
      CHECK(std::isnan(pairs[2 * size]));
      kernels->softmax_row(a.data(), n, out.data());
      double total = 0;
      for (const float x : a) total += std::exp(static_cast<double>(x));
      for (size_t i = 0; i < size; ++i) wrong += !close(out[i], std::exp(static_cast<double>(a[i])) / total);
      CHECK(std::isnan(out[size]));
      a[static_cast<size_t>(r.between(0, n - 1))] = kNaN;
      kernels->softmax_row(a.data(), n, out.data());
      for (size_t i = 0; i < size; ++i) wrong += !std::isnan(out[i]);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("copy, activate, combine: any strides, any number of dimensions and threads") {
  Random r(2);
  ThreadPool pool(3);
  for (int round = 0; round < 400; ++round) {
    const auto sizes = random_sizes(r);
    Array a(r, sizes, true), b(r, sizes, true), to(r, sizes, false);
    const auto plain = contiguous(sizes);
    auto out = poisoned(product(sizes) + 1);
    const Arithmetic op = r.one_of({Arithmetic::add, Arithmetic::subtract, Arithmetic::multiply});
    combine(op, Layout(sizes, {a.strides, b.strides, plain}), a.start(), b.start(), out.data(), pool);
    int64_t wrong = 0;
    for_each_index(sizes, [&](const std::vector<int64_t>& i) {
      wrong += !close(out[static_cast<size_t>(offset(i, plain))],
                      reference(op, a.start()[offset(i, a.strides)], b.start()[offset(i, b.strides)]));
    });
    activate(Activation::silu, Layout(sizes, {a.strides, plain}), a.start(), out.data(), pool);
    for_each_index(sizes, [&](const std::vector<int64_t>& i) {
      wrong += !close(out[static_cast<size_t>(offset(i, plain))],
                      reference(Activation::silu, a.start()[offset(i, a.strides)]));
    });
    CHECK(std::isnan(out.back()));
    copy(Layout(sizes, {a.strides, to.strides}), a.start(), to.start(), pool);
    for_each_index(sizes, [&](const std::vector<int64_t>& i) {
      wrong += to.start()[offset(i, to.strides)] != a.start()[offset(i, a.strides)];
    });
    CHECK(wrong == 0);
  }
}

TEST_CASE("Large rows are cut, and nothing depends on the number of threads") {
  Random r(3);
  const auto a = r.normals(100001), b = r.normals(100001);
  std::vector<float> one(a.size()), three(a.size());
  Serial serial;
  ThreadPool pool(3);
  const Layout layout({100001}, {{1}, {1}, {1}}), pair({100001}, {{1}, {1}});
  combine(Arithmetic::divide, layout, a.data(), b.data(), one.data(), serial);
  combine(Arithmetic::divide, layout, a.data(), b.data(), three.data(), pool);
  CHECK(one == three);
  activate(Activation::sigmoid, pair, a.data(), one.data(), serial);
  activate(Activation::sigmoid, pair, a.data(), three.data(), pool);
  CHECK(one == three);
}

TEST_CASE("softmax along any dimension of any strides") {
  Random r(4);
  ThreadPool pool(2);
  for (int round = 0; round < 300; ++round) {
    auto sizes = random_sizes(r);
    const int64_t count = r.between(1, 40);
    auto whole = sizes;
    const size_t axis = static_cast<size_t>(r.between(0, static_cast<int64_t>(sizes.size())));
    whole.insert(whole.begin() + static_cast<std::ptrdiff_t>(axis), count);
    Array in(r, whole, false);
    auto in_strides = in.strides, out_strides = contiguous(whole);
    const int64_t in_step = in_strides[axis], out_step = out_strides[axis];
    in_strides.erase(in_strides.begin() + static_cast<std::ptrdiff_t>(axis));
    out_strides.erase(out_strides.begin() + static_cast<std::ptrdiff_t>(axis));
    auto out = poisoned(product(whole));
    softmax(Layout(sizes, {in_strides, out_strides}), count, in_step, out_step, in.start(), out.data(), pool);
    int64_t wrong = 0;
    for_each_index(sizes, [&](const std::vector<int64_t>& i) {
      const float* const from = in.start() + offset(i, in_strides);
      double total = 0;
      for (int64_t c = 0; c < count; ++c) total += std::exp(static_cast<double>(from[c * in_step]));
      for (int64_t c = 0; c < count; ++c)
        wrong += !close(out[static_cast<size_t>(offset(i, out_strides) + c * out_step)],
                        std::exp(static_cast<double>(from[c * in_step])) / total);
    });
    CHECK(wrong == 0);
  }
}

TEST_CASE("avg_pool2d and upsample_nearest2d: any windows and pixels of images of any strides") {
  Random r(5);
  ThreadPool pool(2);
  for (int round = 0; round < 300; ++round) {
    const Planes p{r.between(0, 2), r.between(1, 20), r.between(1, 12), r.between(1, 40)};
    const std::vector<int64_t> sizes = {p.batch, p.channels, p.height, p.width};
    Array in(r, sizes, false);
    ConstTensor4 tensor{in.start(), {}};
    std::copy(in.strides.begin(), in.strides.end(), tensor.stride);
    const auto windows = [&](int64_t length) {
      std::vector<Window> result(static_cast<size_t>(r.between(1, 6)));
      for (Window& w : result) {
        w.begin = r.between(0, length - 1);
        w.end = r.between(w.begin + 1, length);
      }
      if (r.chance(0.3)) result = {{0, length}};
      return result;
    };
    const auto rows = windows(p.height), columns = windows(p.width);
    const float divisor = r.chance(0.5) ? 0.0f : 7.0f;
    const std::vector<int64_t> pooled = {p.batch, p.channels, static_cast<int64_t>(rows.size()),
                                         static_cast<int64_t>(columns.size())};
    auto out = poisoned(product(pooled) + 1);
    avg_pool2d(p, tensor, rows, columns, divisor, out.data(), pool);
    int64_t wrong = 0;
    const auto strides = contiguous(pooled);
    for_each_index(pooled, [&](const std::vector<int64_t>& i) {
      const Window row = rows[static_cast<size_t>(i[2])], column = columns[static_cast<size_t>(i[3])];
      double sum = 0;
      for (int64_t y = row.begin; y < row.end; ++y)
        for (int64_t x = column.begin; x < column.end; ++x)
          sum += in.start()[offset({i[0], i[1], y, x}, in.strides)];
      const auto pixels = static_cast<double>((row.end - row.begin) * (column.end - column.begin));
      wrong += !close(out[static_cast<size_t>(offset(i, strides))], sum / (divisor != 0 ? divisor : pixels));
    });
    CHECK(std::isnan(out.back()));

    const int64_t factor = r.between(1, 3);
    std::vector<int64_t> from_rows, from_columns;
    for (int64_t y = 0; y < p.height * factor; ++y)
      from_rows.push_back(r.chance(0.1) ? r.between(0, p.height - 1) : y / factor);
    for (int64_t x = 0; x < p.width * factor; ++x) from_columns.push_back(x / factor);
    if (r.chance(0.3)) from_columns.push_back(r.between(0, p.width - 1));
    const std::vector<int64_t> large = {p.batch, p.channels, static_cast<int64_t>(from_rows.size()),
                                        static_cast<int64_t>(from_columns.size())};
    out = poisoned(product(large) + 1);
    upsample_nearest2d(p, tensor, from_rows, from_columns, out.data(), pool);
    const auto large_strides = contiguous(large);
    for_each_index(large, [&](const std::vector<int64_t>& i) {
      wrong += out[static_cast<size_t>(offset(i, large_strides))] !=
               in.start()[offset({i[0], i[1], from_rows[static_cast<size_t>(i[2])],
                                  from_columns[static_cast<size_t>(i[3])]},
                                 in.strides)];
    });
    CHECK(std::isnan(out.back()));
    CHECK(wrong == 0);
  }
}

TEST_CASE("Arithmetic has four names") {
  CHECK(parse_arithmetic("divide") == Arithmetic::divide);
  CHECK_THROWS_WITH_AS(parse_arithmetic("modulo"),
                       "unknown arithmetic 'modulo': expected add, subtract, multiply or divide.", Error);
}
