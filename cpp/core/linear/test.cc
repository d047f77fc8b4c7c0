// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <thread>

#include "core/base/error.h"
#include "core/cpu/isa.h"
#include "core/linear/kernels.h"
#include "core/linear/linear.h"
#include "core/linear/prepare.h"
#include "core/testing/random.h"

using namespace semisparse;
using semisparse::testing::poisoned;
using semisparse::testing::Random;

namespace {

WeightShape shape_of(const LinearGeometry& g) {
  return {g.out_features, g.in_features, 1, 1, 1};
}

// Every structure a linear layer may have: see Random::weight, and blocks of features that share their
// inputs.
std::vector<float> draw_weight(Random& r, const LinearGeometry& g) {
  std::vector<float> w = r.weight(shape_of(g));
  const int kind = static_cast<int>(r.between(0, 5));
  const int64_t block = r.one_of<int64_t>({1, 8, 16, 64});
  const double kept = r.one_of({0.05, 0.2, 0.5});
  if (kind > 3) return w;
  if (kind == 3) return r.normals(g.out_features * g.in_features);
  std::vector<bool> used;
  for (int64_t o = 0; o < g.out_features; ++o) {
    if (o % block == 0) {
      used.assign(static_cast<size_t>(g.in_features), false);
      for (size_t i = 0; i < used.size(); ++i) used[i] = r.chance(kept);
    }
    for (int64_t i = 0; i < g.in_features; ++i)
      w[static_cast<size_t>(o * g.in_features + i)] = used[static_cast<size_t>(i)] ? r.normal() : 0.0f;
  }
  return w;
}

struct Problem {
  LinearGeometry g;
  std::vector<float> input, weight, bias, want;
  LinearOperands operands;

  explicit Problem(Random& r) {
    g.rows = r.chance(0.9) ? r.between(0, 20) : r.between(90, 300);
    g.in_features = r.chance(0.9) ? r.between(1, 150) : r.between(400, 3000);  // several blocks of rows
    g.out_features = r.between(1, r.chance(0.8) ? 90 : 300);
    operands.row_stride = g.in_features + r.between(0, 3);
    input = r.normals(std::max<int64_t>(1, g.rows * operands.row_stride));
    operands.input = input.data();
    weight = draw_weight(r, g);
    if (r.chance(0.7)) {
      bias = r.normals(g.out_features);
      operands.bias = bias.data();
    }
    operands.activation = r.one_of({Activation::none, Activation::relu, Activation::relu6, Activation::silu,
                                    Activation::leaky_relu, Activation::hardswish, Activation::sigmoid});
    want = poisoned(outputs());
    LinearOperands o = operands;
    o.output = want.data();
    linear_reference(g, weight.data(), o);
  }
  int64_t outputs() const { return g.rows * g.out_features; }
};

void check_close(const std::vector<float>& got, const std::vector<float>& want, int64_t terms) {
  REQUIRE(got.size() == want.size());
  double worst = 0, scale = 1;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::isnan(got[i]) ? 1e9 : std::max(worst, static_cast<double>(std::abs(got[i] - want[i])));
    scale = std::max(scale, static_cast<double>(std::abs(want[i])));
  }
  CHECK(worst <= (1e-5 + 4e-7 * std::sqrt(static_cast<double>(terms))) * scale);
}

}  // namespace

TEST_CASE("linear equals the float64 reference on random problems, for every thread count") {
  ThreadPool one(1), three(3);
  Random r(31);
  for (int i = 0; i < 400; ++i) {
    Problem p(r);
    CAPTURE(i);
    CAPTURE(p.g.rows);
    CAPTURE(p.g.in_features);
    CAPTURE(p.g.out_features);
    const auto packed = pack_weight(p.weight.data(), shape_of(p.g));
    LinearWeight weight;
    auto got = poisoned(p.outputs() + 1), threaded = poisoned(p.outputs());
    p.operands.output = got.data();
    linear(p.g, weight, packed.data(), packed.size(), p.operands, one);
    CHECK(std::isnan(got.back()));
    got.pop_back();
    check_close(got, p.want, p.g.in_features);
    p.operands.output = threaded.data();
    linear(p.g, weight, packed.data(), packed.size(), p.operands, three);
    CHECK(got == threaded);  // bit for bit
  }
}

TEST_CASE("linear kernels: every set, every number of rows, every form") {
  for (const LinearKernels* kernels : linear_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->isa);
    Random r(37);
    bool met[3] = {};
    for (int i = 0; i < 150; ++i) {
      Problem p(r);
      if (p.g.rows == 0) continue;
      const auto packed = pack_weight(p.weight.data(), shape_of(p.g));
      const auto prepared = prepare_linear(packed.data(), packed.size(), *kernels);
      const size_t stride = static_cast<size_t>(p.g.in_features + 4 * kernels->lanes);
      const int rows = static_cast<int>(std::min<int64_t>(p.g.rows, kernels->max_rows));
      std::vector<float> x(static_cast<size_t>(rows) * stride, 0.0f), got, want;
      for (int row = 0; row < rows; ++row)
        for (int64_t k = 0; k < p.g.in_features; ++k)
          x[static_cast<size_t>(row) * stride + static_cast<size_t>(k)] =
              p.input[static_cast<size_t>(row * p.operands.row_stride + k)];
      for (const auto& panel : prepared->panels) {
        const int width = panel.vectors * kernels->lanes;
        std::vector<float> bias(static_cast<size_t>(width), 0.0f), out(static_cast<size_t>(rows * width));
        for (int32_t f = 0; f < panel.features && !p.bias.empty(); ++f)
          bias[static_cast<size_t>(f)] =
              p.bias[static_cast<size_t>(prepared->features[static_cast<size_t>(panel.first + f)])];
        const LinearPanelArgs args{rows,
                                   x.data(),
                                   stride,
                                   panel.vectors,
                                   panel.count,
                                   panel.weights.data(),
                                   panel.inputs.data(),
                                   panel.steps.data(),
                                   panel.lanes.data(),
                                   bias.data(),
                                   p.operands.activation,
                                   out.data()};
        met[static_cast<int>(panel.form)] = true;
        (panel.form == PanelForm::dense    ? kernels->dense
         : panel.form == PanelForm::shared ? kernels->shared
                                           : kernels->sliding)(args);
        for (int row = 0; row < rows; ++row)
          for (int32_t f = 0; f < panel.features; ++f) {
            got.push_back(out[static_cast<size_t>(row * width + f)]);
            want.push_back(p.want[static_cast<size_t>(
                row * p.g.out_features + prepared->features[static_cast<size_t>(panel.first + f)])]);
          }
      }
      REQUIRE(got.size() == static_cast<size_t>(rows * p.g.out_features));
      check_close(got, want, p.g.in_features);
    }
    for (const bool form : met) CHECK(form);
  }
}

TEST_CASE("linear: the form with the fewest bytes") {
  Random r(41);
  const LinearKernels& kernels = *linear_kernels().back();
  const LinearGeometry g{1, 256, 64};
  const auto bytes = [&](double kept, int64_t block) {
    auto w = r.normals(g.in_features * g.out_features);
    for (int64_t o = 0; o < g.out_features; o += block)
      for (int64_t i = 0; i < g.in_features; ++i)
        if (!r.chance(kept))
          for (int64_t k = o; k < o + block; ++k) w[static_cast<size_t>(k * g.in_features + i)] = 0;
    const auto packed = pack_weight(w.data(), shape_of(g));
    const auto prepared = prepare_linear(packed.data(), packed.size(), kernels);
    return std::make_pair(prepared->panels[0].form, static_cast<double>(prepared->bytes) / (256 * 64 * 4));
  };
  CHECK(bytes(1, 1).first == PanelForm::dense);
  CHECK(bytes(0.25, 16).first == PanelForm::shared);
  CHECK(bytes(0.25, 16).second < 0.4);
  CHECK(bytes(0.25, 1).first == PanelForm::sliding);
  CHECK(bytes(0.25, 1).second < 0.55);
}

TEST_CASE("linear: an infinite input reaches the features that use it and no finite one of them all") {
  Random r(43);
  const LinearGeometry g{1, 40, 33};
  auto w = r.normals(g.in_features * g.out_features);
  for (size_t k = 0; k < w.size(); ++k)
    if (k / 40 % 2 == 0 || r.chance(0.7)) w[k] = 0;  // every other feature uses nothing
  std::vector<float> x = r.normals(g.in_features), out = poisoned(g.out_features);
  x[39] = INFINITY;
  const auto packed = pack_weight(w.data(), shape_of(g));
  LinearWeight weight;
  LinearOperands o;
  o.input = x.data();
  o.row_stride = 40;
  o.output = out.data();
  Serial serial;
  linear(g, weight, packed.data(), packed.size(), o, serial);
  for (size_t f = 0; f < out.size(); ++f)
    if (w[f * 40 + 39] != 0) CHECK(std::isinf(out[f]));
}

TEST_CASE("several threads may share one packed linear weight") {
  Random r(47);
  Problem p(r);
  const auto packed = pack_weight(p.weight.data(), shape_of(p.g));
  LinearWeight weight;
  std::vector<std::vector<float>> outs(4, poisoned(p.outputs()));
  std::vector<std::thread> threads;
  for (auto& out : outs)
    threads.emplace_back([&] {
      LinearOperands o = p.operands;
      o.output = out.data();
      Serial serial;
      for (int i = 0; i < 20; ++i) linear(p.g, weight, packed.data(), packed.size(), o, serial);
    });
  for (auto& t : threads) t.join();
  for (const auto& out : outs) check_close(out, p.want, p.g.in_features);
}

TEST_CASE("linear: another shape, a convolution's weight and damaged bytes are refused in words") {
  const std::vector<float> w(24, 1.0f), x(24 * 20, 1.0f);
  std::vector<float> out(24 * 20);
  Serial serial;
  const auto message = [&](const WeightShape& packed_shape, const LinearGeometry& g,
                           size_t cut) -> std::string {
    auto packed = pack_weight(w.data(), packed_shape);
    packed.resize(packed.size() - cut);
    LinearWeight weight;
    LinearOperands o;
    o.input = x.data();
    o.row_stride = g.in_features;
    o.output = out.data();
    try {
      linear(g, weight, packed.data(), packed.size(), o, serial);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  for (const int64_t rows : {0, 1, 20}) {
    CHECK(message({6, 4, 1, 1, 1}, {rows, 4, 6}, 0).empty());
    CHECK(message({6, 4, 1, 1, 1}, {rows, 6, 4}, 0).find("packed weight has shape (6, 4)") !=
          std::string::npos);
    CHECK(message({6, 2, 1, 2, 1}, {rows, 4, 6}, 0).find("(6, 2, 1, 2)") != std::string::npos);
    CHECK(message({6, 4, 1, 1, 2}, {rows, 4, 6}, 0).find("groups=2") != std::string::npos);
    CHECK(message({6, 4, 1, 1, 1}, {rows, 4, 6}, 1).find("truncated") != std::string::npos);
  }
  CHECK(message({6, 4, 1, 1, 1}, {1, 0, 6}, 0).find("input and") != std::string::npos);
}

TEST_CASE("linear registry: the portable kernels last, with different names") {
  const auto& all = linear_kernels();
  REQUIRE(!all.empty());
  CHECK(std::string(all.back()->isa) == "scalar");
  for (const auto* a : all)
    for (const auto* b : all) CHECK((a == b || std::string(a->isa) != b->isa));
}
