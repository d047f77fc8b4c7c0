// SPDX-License-Identifier: Apache-2.0
#include "core/depthwise/depthwise.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "core/cpu/isa.h"
#include "core/testing/random.h"

using namespace semisparse;
using semisparse::testing::poisoned;
using semisparse::testing::Random;

namespace {

struct Problem {
  Conv2dGeometry g;
  std::vector<float> input, weight, bias, fill, residual, want;
  std::vector<uint8_t> mask;
  Conv2dOperands operands;

  explicit Problem(Random& r) {
    g.weight.groups = r.between(2, 40);
    g.weight.in_channels_per_group = 1;
    g.weight.out_channels = g.weight.groups * r.one_of<int64_t>({1, 1, 1, 2, 3});
    g.weight.kernel_h = r.one_of<int64_t>({3, 3, 3, 5, 5, 1, 2, 7});
    g.weight.kernel_w = r.chance(0.8) ? g.weight.kernel_h : r.between(1, 7);
    g.batch = r.between(0, 2);
    g.stride_h = r.one_of<int64_t>({1, 1, 2, 2, 3});
    g.stride_w = r.chance(0.8) ? g.stride_h : r.between(1, 4);
    g.pad_h = r.between(0, 3);
    g.pad_w = r.chance(0.8) ? g.pad_h : r.between(0, 4);
    g.dilation_h = r.one_of<int64_t>({1, 1, 1, 2, 3});
    g.dilation_w = r.chance(0.7) ? g.dilation_h : r.between(1, 4);
    const int64_t reach_h = g.dilation_h * (g.weight.kernel_h - 1) + 1;
    const int64_t reach_w = g.dilation_w * (g.weight.kernel_w - 1) + 1;
    g.in_h = std::max<int64_t>(1, reach_h - 2 * g.pad_h) + r.between(0, r.chance(0.1) ? 250 : 20);
    g.in_w = std::max<int64_t>(1, reach_w - 2 * g.pad_w) + r.between(0, r.chance(0.1) ? 250 : 40);
    const int64_t c = g.in_channels(), plane = g.in_h * g.in_w, gap = r.between(0, 2);
    if (r.chance(0.6)) {
      const int64_t width = g.in_w + gap;  // rows further apart than they need be
      input = r.normals(std::max<int64_t>(1, g.batch * c * g.in_h * width));
      operands.input = {input.data(), {c * g.in_h * width, g.in_h * width, width, 1}};
    } else {  // channels_last
      input = r.normals(std::max<int64_t>(1, g.batch * c * plane));
      operands.input = {input.data(), {c * plane, 1, c * g.in_w, c}};
    }
    weight = r.weight(g.weight);
    if (r.chance(0.7)) bias = r.normals(g.out_channels());
    if (r.chance(0.4)) mask = r.mask(g.out_h() * g.out_w());
    if (r.chance(0.5)) fill = r.normals(g.out_channels());
    if (r.chance(0.4)) residual = r.normals(std::max<int64_t>(1, outputs()));
    if (!bias.empty()) operands.bias = bias.data();
    if (!fill.empty()) operands.fill = fill.data();
    if (!residual.empty()) operands.residual = residual.data();
    operands.activation = r.one_of({Activation::none, Activation::relu, Activation::relu6, Activation::silu,
                                    Activation::leaky_relu, Activation::hardswish, Activation::sigmoid});
    want = poisoned(outputs());
    Conv2dOperands o = operands;
    o.output = want.data();
    conv2d_reference(g, weight.data(), mask_or_null(), o);
  }
  int64_t outputs() const { return g.batch * g.out_channels() * g.out_h() * g.out_w(); }
  const uint8_t* mask_or_null() const { return mask.empty() ? nullptr : mask.data(); }
};

}  // namespace

TEST_CASE(
    "depthwise equals the float64 reference on random problems, for every kernel set and thread count") {
  Serial one;
  ThreadPool three(3);
  for (const DepthwiseKernels* kernels : depthwise_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->isa);
    Random r(53);
    for (int i = 0; i < 250; ++i) {
      Problem p(r);
      CAPTURE(i);
      REQUIRE(depthwise_applies(p.g));
      auto got = poisoned(p.outputs() + 1), threaded = poisoned(p.outputs());
      p.operands.output = got.data();
      depthwise_conv2d(p.g, p.weight.data(), p.mask_or_null(), p.operands, one, *kernels);
      CHECK(std::isnan(got.back()));
      got.pop_back();
      double worst = 0;
      for (size_t k = 0; k < got.size(); ++k) {
        const double error = std::abs(static_cast<double>(got[k]) - p.want[k]);
        worst = std::isnan(error) ? 1e9 : std::max(worst, error);
      }
      CHECK(worst < 2e-5);
      p.operands.output = threaded.data();
      depthwise_conv2d(p.g, p.weight.data(), p.mask_or_null(), p.operands, three, *kernels);
      CHECK(got == threaded);
    }
  }
}

TEST_CASE("depthwise: large planes are shared out in bands of rows") {
  Random r(59);
  Conv2dGeometry g;
  g.weight = {2, 1, 5, 5, 2};
  g.in_h = 300, g.in_w = 400, g.stride_h = g.stride_w = 2, g.pad_h = g.pad_w = 2;
  const auto input = r.normals(2 * g.in_h * g.in_w), weight = r.normals(g.weight.elements());
  auto want = poisoned(2 * g.out_h() * g.out_w()), got = want;
  Conv2dOperands o;
  o.input = {input.data(), {0, g.in_h * g.in_w, g.in_w, 1}};
  o.output = want.data();
  conv2d_reference(g, weight.data(), nullptr, o);
  ThreadPool three(3);
  o.output = got.data();
  depthwise_conv2d(g, weight.data(), nullptr, o, three);
  for (size_t k = 0; k < got.size(); ++k) CHECK(std::abs(got[k] - want[k]) < 2e-5);
}

TEST_CASE("depthwise convolutions only") {
  Conv2dGeometry g;
  g.weight = {8, 1, 3, 3, 4};
  CHECK(depthwise_applies(g));
  g.weight = {8, 2, 3, 3, 4};
  CHECK(!depthwise_applies(g));
  g.weight = {8, 1, 3, 3, 1};
  CHECK(!depthwise_applies(g));
}

TEST_CASE("depthwise registry: the portable kernels last, with different names") {
  const auto& all = depthwise_kernels();
  REQUIRE(!all.empty());
  CHECK(std::string(all.back()->isa) == "scalar");
  for (const auto* a : all)
    for (const auto* b : all) CHECK((a == b || std::string(a->isa) != b->isa));
}
