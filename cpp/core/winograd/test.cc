// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/base/aligned.h"
#include "core/conv2d/algorithm.h"
#include "core/cpu/isa.h"
#include "core/row_run/row_run.h"
#include "core/testing/random.h"
#include "core/winograd/winograd.h"

using namespace semisparse;
using semisparse::testing::poisoned;
using semisparse::testing::Random;

namespace {

// Every kernel set that this machine runs, with the tiling of its row-run kernels.
template <class F>
void for_each_kernel(F f) {
  for (const WinogradSize& size : kWinogradSizes)
    for (const WinogradKernels* kernels : winograd_kernels(size))
      if (isa_supported(kernels->isa))
        for (const RowRunKernels* rows : row_run_kernels())
          if (std::string(rows->isa) == kernels->isa) f(*kernels, *rows);
}

// A mask of whole tiles, which are stored another way than single pixels.
std::vector<uint8_t> whole_tiles(Random& r, int64_t tile, int64_t out_h, int64_t out_w) {
  std::vector<uint8_t> mask(static_cast<size_t>(out_h * out_w), 1);
  const double removed = r.one_of({0.1, 0.3, 0.7});
  for (int64_t top = 0; top < out_h; top += tile)
    for (int64_t left = 0; left < out_w; left += tile)
      if (r.chance(removed))
        for (int64_t y = top; y < std::min(top + tile, out_h); ++y)
          for (int64_t x = left; x < std::min(left + tile, out_w); ++x)
            mask[static_cast<size_t>(y * out_w + x)] = 0;
  return mask;
}

}  // namespace

TEST_CASE("input transform, weight transform and output transform make a convolution, for every kernel set") {
  Random r(3);
  for_each_kernel([&](const WinogradKernels& kernels, const RowRunKernels& rows) {
    CAPTURE(kernels.name);
    for (int i = 0; i < 100; ++i) {
      Conv2dGeometry g;
      const int64_t taps = kernels.size.taps;
      g.weight = {1, 1, taps, taps, 1};
      g.pad_h = r.between(0, 3);
      g.pad_w = r.between(0, 3);
      g.in_h = std::max<int64_t>(1, taps - 2 * g.pad_h) + r.between(0, 20);
      g.in_w = std::max<int64_t>(1, taps - 2 * g.pad_w) + r.between(0, 90);
      CAPTURE(g.in_h);
      CAPTURE(g.in_w);
      const int64_t pixels = g.out_h() * g.out_w();
      const auto input = r.normals(g.in_h * g.in_w), weight = r.normals(taps * taps),
                 residual = r.normals(pixels);
      const bool tiles = i % 2 == 0;
      const auto mask = tiles ? whole_tiles(r, kernels.size.tile, g.out_h(), g.out_w()) : r.mask(pixels);
      const float bias = r.normal(), fill = r.normal();
      const float* const added = r.chance(0.5) ? residual.data() : nullptr;
      auto want = poisoned(pixels), got = want;
      Conv2dOperands o;
      o.input = {input.data(), {0, 0, g.in_w, 1}};
      o.bias = &bias;
      o.fill = &fill;
      o.residual = added;
      o.activation = Activation::leaky_relu;
      o.output = want.data();
      conv2d_reference(g, weight.data(), mask.data(), o);

      const auto plan =
          make_tile_plan(kernels.size, static_cast<int32_t>(g.out_h()), static_cast<int32_t>(g.out_w()),
                         mask.data(), {rows.lanes, rows.max_vectors, 0});
      CHECK(plan->tiles->kept == count_tiles(kernels.size.tile, g.out_h(), g.out_w(), mask.data()));
      for (const TileSegment& segment : plan->segments) CHECK((segment.whole || !tiles));
      AlignedBuffer scratch, planes;
      std::vector<float> transformed(static_cast<size_t>(kernels.size.planes()));
      winograd_transform_weight(kernels.size, weight.data(), transformed.data());
      for (const Panel& panel : plan->tiles->panels) {
        const size_t width = static_cast<size_t>(panel.vectors * rows.lanes), count = transformed.size();
        float* const values = planes.reserve(count * width + 16);
        if (panel.vectors > 0)
          kernels.input({input.data(), g.in_h, g.in_w, g.in_w, g.pad_h, g.pad_w, plan.get(), &panel,
                         scratch.reserve(tile_scratch(*plan)), values, width});
        for (size_t p = 0; p < count; ++p)
          for (size_t t = 0; t < width; ++t) values[p * width + t] *= transformed[p];
        kernels.output({values, width, plan.get(), &panel, scratch.reserve(tile_scratch(*plan)), bias, fill,
                        added, got.data(), Activation::leaky_relu});
      }
      double worst = 0;
      for (size_t p = 0; p < got.size(); ++p)
        worst = std::isnan(got[p]) ? 1e9 : std::max(worst, static_cast<double>(std::abs(got[p] - want[p])));
      CHECK(worst < 1e-4);
    }
  });
}

TEST_CASE("the error of a deep layer is small beside its largest output") {
  // 3x3, and 7x7 of stride 2 (4x4 taps of each phase). Inputs after a ReLU (all of one sign, so that nothing
  // averages out).
  struct Case {
    int64_t channels, kernel, stride;
  };
  for (const auto& [channels, kernel, stride] : {Case{512, 3, 1}, Case{128, 7, 2}}) {
    Random r(9);
    Conv2dGeometry g;
    g.in_h = g.in_w = 16 * stride;
    g.weight = {4, channels, kernel, kernel, 1};
    g.stride_h = g.stride_w = stride;
    g.pad_h = g.pad_w = kernel / 2;
    const int64_t plane = g.in_h * g.in_w;
    auto input = r.normals(channels * plane);
    for (float& x : input) x = std::max(x, 0.0f);
    const auto weight = r.normals(g.weight.elements());
    auto want = poisoned(4 * 256), got = want;
    Conv2dOperands o;
    o.input = {input.data(), {channels * plane, plane, g.in_w, 1}};
    o.output = want.data();
    conv2d_reference(g, weight.data(), nullptr, o);
    const auto packed = pack_weight(weight.data(), g.weight);
    Serial serial;
    float largest = 0;
    for (const float x : want) largest = std::max(largest, std::abs(x));
    for (const auto& [algorithm, bound] :
         {std::pair{Algorithm::im2col, 2e-6f}, std::pair{Algorithm::winograd2, 3e-6f},
          std::pair{Algorithm::winograd4, 1e-5f}}) {
      const Algorithm before = force_algorithm(algorithm);
      PackedWeight prepared;
      o.output = got.data();
      conv2d(g, prepared, packed.data(), packed.size(), nullptr, o, serial);
      force_algorithm(before);
      float worst = 0;
      for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - want[i]));
      CAPTURE(std::string(algorithm_name(algorithm)));
      MESSAGE(kernel, "x", kernel, " ", std::string(algorithm_name(algorithm)),
              ": largest error / largest output = ", worst / largest);
      CHECK(worst <= bound * largest);
    }
  }
}

TEST_CASE("a deep layer shared out among any number of threads comes to the same bits") {
  Random r(15);
  for (const int64_t filters : {36, 96, 256, 260}) {
    Conv2dGeometry g;
    g.in_h = g.in_w = 14;  // 16 tiles of 4x4
    g.weight = {filters, 140, 3, 3, 1};
    g.pad_h = g.pad_w = 1;
    const int64_t plane = 14 * 14;
    const auto input = r.normals(g.in_channels() * plane), weight = r.normals(g.weight.elements());
    const auto mask = whole_tiles(r, 4, 14, 14);
    const auto packed = pack_weight(weight.data(), g.weight);
    Conv2dOperands o;
    o.input = {input.data(), {g.in_channels() * plane, plane, g.in_w, 1}};
    const Algorithm before = force_algorithm(Algorithm::winograd4);
    for (const uint8_t* const kept : {static_cast<const uint8_t*>(nullptr), mask.data()}) {
      CAPTURE(filters);
      CAPTURE((kept != nullptr));
      auto want = poisoned(filters * plane), one = want;
      o.output = want.data();
      conv2d_reference(g, weight.data(), kept, o);
      PackedWeight prepared;
      Serial serial;
      o.output = one.data();
      conv2d(g, prepared, packed.data(), packed.size(), kept, o, serial);
      float largest = 0, worst = 0;
      for (const float x : want) largest = std::max(largest, std::abs(x));
      for (size_t i = 0; i < want.size(); ++i)
        worst = std::isnan(one[i]) ? 1e9f : std::max(worst, std::abs(one[i] - want[i]));
      CHECK(worst <= 1e-5f * largest);
      for (const int threads : {2, 3, 4}) {
        ThreadPool pool(threads);
        auto got = poisoned(filters * plane);
        o.output = got.data();
        conv2d(g, prepared, packed.data(), packed.size(), kept, o, pool);
        CAPTURE(threads);
        CHECK(got == one);
      }
    }
    force_algorithm(before);
  }
}

TEST_CASE("a skipped tile is not read: what lies under it alone does not matter") {
  Conv2dGeometry g;
  g.in_h = g.in_w = 12;
  g.weight = {4, 1, 3, 3, 1};
  g.pad_h = g.pad_w = 1;
  std::vector<uint8_t> mask(144, 1);
  for (int y = 4; y < 8; ++y)
    for (int x = 4; x < 8; ++x) mask[static_cast<size_t>(y * 12 + x)] = 0;
  std::vector<float> input(144, 1.0f);
  for (int y = 5; y < 7; ++y)
    for (int x = 5; x < 7; ++x) input[static_cast<size_t>(y * 12 + x)] = NAN;
  const std::vector<float> weight(36, 1.0f);
  auto out = poisoned(4 * 144);
  Conv2dOperands o;
  o.input = {input.data(), {144, 144, 12, 1}};
  o.output = out.data();
  const auto packed = pack_weight(weight.data(), g.weight);
  PackedWeight prepared;
  Serial serial;
  const Algorithm before = force_algorithm(Algorithm::winograd4);
  conv2d(g, prepared, packed.data(), packed.size(), mask.data(), o, serial);
  force_algorithm(before);
  for (size_t i = 0; i < 144; ++i) CHECK(std::isfinite(out[i]));
}
