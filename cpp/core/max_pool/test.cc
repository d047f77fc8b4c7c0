// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>

#include "core/base/error.h"
#include "core/cpu/isa.h"
#include "core/max_pool/kernels.h"
#include "core/testing/random.h"

using namespace semisparse;
using semisparse::testing::poisoned;
using semisparse::testing::Random;

namespace {

std::string describe(const MaxPool2dGeometry& g) {
  const auto s = [](int64_t a, int64_t b) { return " " + std::to_string(a) + "x" + std::to_string(b); };
  return s(g.batch, g.channels) + s(g.in_h, g.in_w) + " kernel" + s(g.kernel_h, g.kernel_w) + " stride" +
         s(g.stride_h, g.stride_w) + " pad" + s(g.pad_h, g.pad_w) + " dilation" +
         s(g.dilation_h, g.dilation_w) + (g.ceil_mode ? " ceil" : "");
}

MaxPool2dGeometry random_geometry(Random& r) {
  for (;;) {
    MaxPool2dGeometry g;
    g.batch = r.between(0, 2);
    g.channels = r.between(1, 20);
    g.in_h = r.between(1, 40);
    g.in_w = r.between(1, r.chance(0.3) ? 150 : 40);
    g.kernel_h = r.one_of({1, 2, 3, 3, 4, 5, 6, 9});
    g.kernel_w = r.one_of({1, 2, 3, 3, 4, 5, 8, 13});
    g.stride_h = r.between(1, 4);
    g.stride_w = r.one_of({1, 2, 2, 3, 5});
    g.pad_h = r.between(0, g.kernel_h / 2);
    g.pad_w = r.between(0, g.kernel_w / 2);
    g.dilation_h = r.one_of({1, 1, 2, 3});
    g.dilation_w = r.one_of({1, 1, 2, 4});
    g.ceil_mode = r.chance(0.5);
    if (g.out_h() >= 1 && g.out_w() >= 1) return g;
  }
}

// Equal to the bit but for the sign of zero; all NaN are one.
bool same(float a, float b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

void check_same(const std::vector<float>& got, const std::vector<float>& want) {
  REQUIRE(got.size() == want.size());
  int64_t wrong = 0;
  for (size_t i = 0; i < got.size(); ++i) wrong += !same(got[i], want[i]);
  CHECK(wrong == 0);
}

struct Problem {
  MaxPool2dGeometry g;
  std::vector<float> memory, want;
  ConstTensor4 input;

  explicit Problem(Random& r) : g(random_geometry(r)) {
    const bool channels_last = r.chance(0.3);
    // Rows, or pixels, further apart than they need be: what lies between is NaN, and must not be read as a
    // pixel.
    const int64_t gap = r.between(0, 3);
    const int64_t width = channels_last ? g.channels + gap : g.in_w + gap;
    const int64_t image = channels_last ? g.in_h * g.in_w * width : g.channels * g.in_h * width;
    memory = poisoned(g.batch * image);
    for (int i = 0; i < 4; ++i) {
      const int64_t strides[2][4] = {{image, g.in_h * width, width, 1}, {image, 1, g.in_w * width, width}};
      input.stride[i] = strides[channels_last][i];
    }
    const int special = static_cast<int>(r.between(0, 3));
    constexpr float inf = std::numeric_limits<float>::infinity(),
                    nan = std::numeric_limits<float>::quiet_NaN();
    for (int64_t n = 0; n < g.batch; ++n)
      for (int64_t c = 0; c < g.channels; ++c)
        for (int64_t y = 0; y < g.in_h; ++y)
          for (int64_t x = 0; x < g.in_w; ++x) {
            float value = special == 3 ? r.normal() - 100.0f : r.normal();  // padding with zeros would show
            if (special == 1 && r.chance(0.05)) value = nan;
            if (special == 2 && r.chance(0.3)) value = r.one_of({inf, -inf, nan, 0.0f, -0.0f, 1e-42f});
            const int64_t (&s)[4] = input.stride;
            memory[static_cast<size_t>(n * s[0] + c * s[1] + y * s[2] + x * s[3])] = value;
          }
    input.data = memory.data();
    want = poisoned(outputs());
    max_pool2d_reference(g, input, want.data());
  }

  int64_t outputs() const { return g.batch * g.channels * g.out_h() * g.out_w(); }
};

}  // namespace

TEST_CASE("max_pool2d: random geometries, layouts, infinities and NaN") {
  Random r(5);
  Serial one;
  ThreadPool three(3);
  for (int i = 0; i < 400; ++i) {
    const Problem p(r);
    CAPTURE(describe(p.g));
    auto got = poisoned(p.outputs() + 1), threaded = poisoned(p.outputs());
    max_pool2d(p.g, p.input, got.data(), one);
    CHECK(std::isnan(got.back()));
    got.pop_back();
    check_same(got, p.want);
    max_pool2d(p.g, p.input, threaded.data(), three);
    check_same(threaded, p.want);
  }
}

TEST_CASE("max_pool2d: large planes are shared out in bands of rows") {
  Random r(6);
  MaxPool2dGeometry g;
  g.in_h = 400, g.in_w = 500, g.kernel_h = 5, g.kernel_w = 3, g.stride_h = 3, g.stride_w = 2,
  g.pad_h = g.pad_w = 1;
  const auto in = r.normals(g.in_h * g.in_w);
  const ConstTensor4 input{in.data(), {0, 0, g.in_w, 1}};
  auto want = poisoned(g.out_h() * g.out_w()), got = want;
  max_pool2d_reference(g, input, want.data());
  ThreadPool three(3);
  max_pool2d(g, input, got.data(), three);
  check_same(got, want);
}

TEST_CASE("max pooling kernels: where a NaN lies in the window does not matter, on every set") {
  for (const MaxPoolKernels* kernels : max_pool_kernels()) {
    if (!isa_supported(kernels->isa)) continue;
    CAPTURE(kernels->isa);
    for (const int64_t stride : {1, 2, 3}) {
      MaxPool2dGeometry g;
      g.in_h = g.kernel_h = 4;
      g.in_w = 61, g.kernel_w = 4, g.stride_w = stride, g.pad_w = 2;
      for (int64_t pixel = 0; pixel < g.in_h * g.in_w; ++pixel) {
        std::vector<float> in(static_cast<size_t>(g.in_h * g.in_w), 3.0f);
        in[static_cast<size_t>(pixel)] = std::numeric_limits<float>::quiet_NaN();
        const int64_t row = max_pool_row(g, kernels->lanes);
        REQUIRE(2 * row <= 512);
        alignas(64) float scratch[512];
        auto out = poisoned(g.out_w()), want = out;
        kernels->pool({&g, in.data(), g.in_w, 0, 1, g.out_w(), row, 1, scratch, out.data()});
        max_pool2d_reference(g, {in.data(), {0, 0, g.in_w, 1}}, want.data());
        check_same(out, want);
      }
    }
  }
}

TEST_CASE("max_pool2d: a window without a pixel, and no image at all") {
  MaxPool2dGeometry g;  // the two taps lie to the left and to the right of the only pixel
  g.in_h = g.in_w = 1, g.kernel_h = 1, g.kernel_w = 2, g.pad_w = 1, g.dilation_w = 2;
  const float in = 1.0f;
  float out = 0.0f;
  Serial one;
  max_pool2d(g, {&in, {1, 1, 1, 1}}, &out, one);
  CHECK(out == -std::numeric_limits<float>::infinity());
  g.batch = 0;
  max_pool2d(g, {nullptr, {1, 1, 1, 1}}, nullptr, one);
}

TEST_CASE("max_pool2d: output sizes in ceil mode") {
  MaxPool2dGeometry g;
  g.in_h = 6, g.in_w = 5, g.kernel_h = g.kernel_w = 3, g.stride_h = g.stride_w = 2;
  CHECK(g.out_h() == 2);
  CHECK(g.out_w() == 2);
  g.ceil_mode = true;
  CHECK(g.out_h() == 3);
  CHECK(g.out_w() == 2);
  g.in_h = 5, g.kernel_h = 2, g.stride_h = 4, g.pad_h = 1;  // a window may not start beyond the image
  CHECK(g.out_h() == 2);
  g.in_h = 3;
  CHECK(g.out_h() == 1);
}

TEST_CASE("max_pool2d: impossible geometries are refused in words") {
  MaxPool2dGeometry good;
  good.in_h = good.in_w = 8, good.kernel_h = good.kernel_w = 3;
  const auto refused = [&](auto&& change, const char* word) {
    MaxPool2dGeometry g = good;
    change(g);
    try {
      g.validate();
      FAIL("not refused");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find(word) != std::string::npos);
    }
  };
  good.validate();
  refused([](auto& g) { g.kernel_w = 0; }, "kernel_size");
  refused([](auto& g) { g.stride_h = 0; }, "stride");
  refused([](auto& g) { g.dilation_w = 0; }, "dilation");
  refused([](auto& g) { g.pad_h = 2; }, "half of the kernel");
  refused([](auto& g) { g.pad_w = -1; }, "padding");
  refused([](auto& g) { g.in_h = 2; }, "smaller than the kernel's reach");
  refused([](auto& g) { g.in_w = 0; }, "input image");
  refused([](auto& g) { g.batch = -1; }, "images");
  refused([](auto& g) { g.dilation_h = g.kernel_h = (1 << 20) - 1; }, "reach");
}

TEST_CASE("max pooling registry: the portable kernels last, with different names") {
  const auto& all = max_pool_kernels();
  REQUIRE(!all.empty());
  CHECK(std::string(all.back()->isa) == "scalar");
  for (const auto* a : all)
    for (const auto* b : all) CHECK((a == b || std::string(a->isa) != b->isa));
}
