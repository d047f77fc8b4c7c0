// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <thread>

#include "core/base/aligned.h"
#include "core/base/error.h"
#include "core/conv2d/algorithm.h"
#include "core/conv2d/conv2d.h"
#include "core/cpu/cpu.h"
#include "core/row_run/row_run.h"
#include "core/testing/random.h"
#include "core/winograd/winograd.h"

using namespace semisparse;
using semisparse::testing::poisoned;
using semisparse::testing::Random;

namespace {

struct Problem {
  Conv2dGeometry g;
  std::vector<float> input, weight, bias, fill, residual;
  std::vector<uint8_t> mask;
  Conv2dOperands operands;
  bool masked = false;

  int64_t outputs() const { return g.batch * g.out_channels() * g.out_h() * g.out_w(); }
  const uint8_t* mask_or_null() const { return masked ? mask.data() : nullptr; }
};

std::unique_ptr<Problem> draw(Random& r) {
  auto p = std::make_unique<Problem>();
  Conv2dGeometry& g = p->g;
  g.weight.groups = r.one_of<int64_t>({1, 1, 1, 2, 3});
  g.weight.in_channels_per_group = r.between(1, 9);
  g.weight.out_channels = g.weight.groups * r.between(1, 10);
  if (r.chance(0.15)) {  // depthwise, with a multiplier
    g.weight.groups = r.between(1, 12);
    g.weight.in_channels_per_group = 1;
    g.weight.out_channels = g.weight.groups * r.between(1, 2);
  }
  if (r.chance(0.1)) g.weight.in_channels_per_group = 200 / g.weight.groups;  // several chunks
  g.weight.kernel_h = r.one_of<int64_t>({1, 1, 3, 3, 3, 2, 5, 7});
  g.weight.kernel_w = r.chance(0.8) ? g.weight.kernel_h : r.between(1, 7);
  g.batch = r.between(1, 3);
  g.stride_h = r.one_of<int64_t>({1, 1, 2, 3});
  g.stride_w = r.chance(0.8) ? g.stride_h : r.between(1, 5);
  g.pad_h = r.between(0, 3);
  g.pad_w = r.chance(0.8) ? g.pad_h : r.between(0, 3);
  g.dilation_h = r.one_of<int64_t>({1, 1, 1, 2, 9});
  g.dilation_w = r.chance(0.8) ? g.dilation_h : r.between(1, 20);
  if (r.chance(0.35)) {  // what Winograd can do
    g.stride_h = r.one_of<int64_t>({1, 1, 1, 2, 3});
    g.stride_w = r.chance(0.8) ? g.stride_h : r.between(1, 3);
    const int64_t taps = r.one_of<int64_t>({3, 3, 4});  // of every phase
    g.weight = {g.weight.out_channels, r.chance(0.1) ? 200 : r.between(1, 9),
                g.stride_h * taps - r.between(0, g.stride_h - 1),
                g.stride_w * taps - r.between(0, g.stride_w - 1), 1};
    g.dilation_h = g.dilation_w = 1;
  }
  const int64_t reach_h = g.dilation_h * (g.weight.kernel_h - 1) + 1;
  const int64_t reach_w = g.dilation_w * (g.weight.kernel_w - 1) + 1;
  g.in_h = std::max<int64_t>(1, reach_h - 2 * g.pad_h) + (r.chance(0.2) ? 0 : r.between(0, 24));
  g.in_w = std::max<int64_t>(1, reach_w - 2 * g.pad_w) + (r.chance(0.2) ? 0 : r.between(0, 40));

  const int64_t c = g.in_channels(), hw = g.in_h * g.in_w, pixels = g.out_h() * g.out_w(),
                oc = g.out_channels();
  p->input = r.normals(g.batch * c * hw);
  p->operands.input.data = p->input.data();
  if (r.chance(0.6)) {
    p->operands.input = {p->input.data(), {c * hw, hw, g.in_w, 1}};
  } else if (r.chance(0.7)) {  // channels_last
    p->operands.input = {p->input.data(), {c * hw, 1, c * g.in_w, c}};
  } else {  // transposed and batch-expanded
    p->operands.input = {p->input.data(), {0, hw, 1, g.in_h}};
  }
  p->weight = r.weight(g.weight);
  if (r.chance(0.7)) {
    p->bias = r.normals(oc);
    p->operands.bias = p->bias.data();
  }
  if (r.chance(0.6)) {
    p->masked = true;
    p->mask = r.mask(pixels);
    if (r.chance(0.7)) {
      p->fill = r.normals(oc);
      p->operands.fill = p->fill.data();
    }
  }
  if (r.chance(0.4)) {
    p->residual = r.normals(p->outputs());
    p->operands.residual = p->residual.data();
  }
  p->operands.activation = r.one_of({Activation::none, Activation::relu, Activation::relu6, Activation::silu,
                                     Activation::leaky_relu, Activation::hardswish, Activation::sigmoid});
  return p;
}

std::string describe(const Conv2dGeometry& g) {
  const auto s = [](int64_t v) { return std::to_string(v) + " "; };
  return "batch " + s(g.batch) + "in " + s(g.in_channels()) + s(g.in_h) + s(g.in_w) + "oc " +
         s(g.out_channels()) + "kernel " + s(g.weight.kernel_h) + s(g.weight.kernel_w) + "groups " +
         s(g.weight.groups) + "stride " + s(g.stride_h) + s(g.stride_w) + "pad " + s(g.pad_h) + s(g.pad_w) +
         "dilation " + s(g.dilation_h) + s(g.dilation_w);
}

// Rounding errors of a sum of `rows` products grow like the square root of their number; Winograd's
// transforms make them larger.
void check_close(const std::vector<float>& got, const std::vector<float>& want, int64_t rows,
                 bool winograd = false) {
  REQUIRE(got.size() == want.size());
  double worst = 0, scale = 1;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::isnan(got[i]) ? 1e9 : std::max(worst, static_cast<double>(std::abs(got[i] - want[i])));
    scale = std::max(scale, static_cast<double>(std::abs(want[i])));
  }
  CHECK(worst <= (winograd ? 4 : 1) * (1e-5 + 4e-7 * std::sqrt(static_cast<double>(rows))) * scale);
}

// Rounds to half precision in place; also returns the halves.
std::vector<Half> rounded(std::vector<float>* values) {
  std::vector<Half> halves;
  for (float& x : *values) {
    halves.push_back(to_half(x));
    x = to_float(halves.back());
  }
  return halves;
}

std::vector<float> floats(const std::vector<Half>& halves) {
  std::vector<float> values;
  for (const Half h : halves) values.push_back(to_float(h));
  return values;
}

// Of the largest output before the activation. Rounding the result alone is 2^-12 of it; sums of some 64
// products in half precision are the rest.
constexpr double kHalfError = 4e-3;

// Sets the algorithm of all layers while it lives.
struct Forced {
  Algorithm before;
  explicit Forced(Algorithm algorithm) : before(force_algorithm(algorithm)) {}
  ~Forced() { force_algorithm(before); }
};

}  // namespace

TEST_CASE(
    "conv2d equals the float64 reference on random problems, packed and plain, for every thread count") {
  ThreadPool one(1), three(3);
  Random r(7);
  for (int i = 0; i < 1000; ++i) {
    auto p = draw(r);
    const Algorithm algorithm =
        r.one_of({Algorithm::automatic, Algorithm::automatic, Algorithm::im2col, Algorithm::direct,
                  Algorithm::direct, Algorithm::winograd4, Algorithm::winograd2});
    const Forced forced(algorithm);
    const bool winograd = algorithm != Algorithm::im2col && algorithm != Algorithm::direct &&
                          (winograd_size(p->g, 4) || winograd_size(p->g, 2));
    CAPTURE(i);
    CAPTURE(std::string(algorithm_name(algorithm)));
    CAPTURE(describe(p->g));
    auto want = poisoned(p->outputs()), first = poisoned(p->outputs()), threaded = first, plain = first;
    p->operands.output = want.data();
    conv2d_reference(p->g, p->weight.data(), p->mask_or_null(), p->operands);

    const auto packed = pack_weight(p->weight.data(), p->g.weight);
    PackedWeight weight;
    p->operands.output = first.data();
    conv2d(p->g, weight, packed.data(), packed.size(), p->mask_or_null(), p->operands, one);
    const int64_t rows = p->g.weight.in_channels_per_group * p->g.weight.taps();
    check_close(first, want, rows, winograd);
    p->operands.output = threaded.data();
    conv2d(p->g, weight, packed.data(), packed.size(), p->mask_or_null(), p->operands, three);
    CHECK(first == threaded);  // bit for bit
    p->operands.output = plain.data();
    conv2d(p->g, p->weight.data(), p->mask_or_null(), p->operands, three);
    check_close(plain, want, rows);
  }
}

TEST_CASE("an image larger than the L2 cache is copied, or cut into phases, band by band") {
  // Five times as large.
  Random r(21);
  Conv2dGeometry g;
  g.batch = 2;
  g.in_w = 250;
  g.weight = {5, 8, 3, 3, 1};
  g.in_h = static_cast<int64_t>(cpu_info().l2_bytes) * 5 / (4 * 8 * g.in_w);
  g.pad_h = g.pad_w = 1;
  const int64_t plane = g.in_h * g.in_w;
  const auto input = r.normals(g.batch * 8 * plane), weight = r.normals(g.weight.elements());
  const auto packed = pack_weight(weight.data(), g.weight);
  const Forced forced(Algorithm::direct);
  ThreadPool four(4);
  Serial one;
  for (const int64_t stride : {1, 2}) {
    g.stride_h = g.stride_w = stride;
    const int64_t pixels = g.out_h() * g.out_w();
    std::vector<uint8_t> scattered(static_cast<size_t>(pixels));
    for (uint8_t& kept : scattered) kept = r.chance(0.7);
    auto gap = scattered;  // rows of which nothing is computed
    std::fill(gap.begin() + pixels / 4, gap.begin() + pixels * 3 / 4, uint8_t{0});
    PackedWeight prepared;
    for (const std::vector<uint8_t>& columns : {std::vector<uint8_t>(), scattered, gap}) {
      const uint8_t* const mask = columns.empty() ? nullptr : columns.data();
      auto want = poisoned(g.batch * 5 * pixels), got = want, threaded = want;
      Conv2dOperands o;
      if (columns == gap)
        o.input = {input.data(), {8 * plane, 1, 8 * g.in_w, 8}};  // channels_last
      else
        o.input = {input.data(), {8 * plane, plane, g.in_w, 1}};
      o.output = want.data();
      conv2d_reference(g, weight.data(), mask, o);
      o.output = got.data();
      conv2d(g, prepared, packed.data(), packed.size(), mask, o, one);
      check_close(got, want, 72);
      o.output = threaded.data();
      conv2d(g, prepared, packed.data(), packed.size(), mask, o, four);
      CHECK(got == threaded);
    }
  }
}

TEST_CASE(
    "conv2d of half precision equals the float64 reference of the same rounded operands, for every thread "
    "count") {
  ThreadPool one(1), three(3);
  Random r(17);
  double worst = 0;
  for (int i = 0; i < 1000; ++i) {
    auto p = draw(r);
    const Algorithm algorithm = r.one_of({Algorithm::automatic, Algorithm::im2col, Algorithm::direct,
                                          Algorithm::direct, Algorithm::winograd4});
    const Forced forced(algorithm);
    CAPTURE(i);
    CAPTURE(std::string(algorithm_name(algorithm)));
    CAPTURE(describe(p->g));
    const auto input = rounded(&p->input), residual = rounded(&p->residual);
    rounded(&p->weight);
    std::vector<float> want = poisoned(p->outputs());
    p->operands.output = want.data();
    const Activation activation = p->operands.activation;
    p->operands.activation = Activation::none;
    conv2d_reference(p->g, p->weight.data(), p->mask_or_null(), p->operands);
    double scale = 1;
    for (const float y : want) scale = std::max(scale, static_cast<double>(std::abs(y)));
    p->operands.activation = activation;
    conv2d_reference(p->g, p->weight.data(), p->mask_or_null(), p->operands);

    HalfConv2dOperands o;
    o.input.data = input.data();
    std::copy_n(p->operands.input.stride, 4, o.input.stride);
    o.bias = p->operands.bias;
    o.fill = p->operands.fill;
    o.residual = p->operands.residual != nullptr ? residual.data() : nullptr;
    o.activation = p->operands.activation;
    const auto packed = pack_weight(p->weight.data(), p->g.weight);
    PackedWeight weight;
    const std::vector<Half> nothing(want.size(), Half{0x7e00});
    const auto run = [&](Parallel& parallel, bool plain) {
      std::vector<Half> out = nothing;
      o.output = out.data();
      if (plain)
        conv2d(p->g, p->weight.data(), p->mask_or_null(), o, parallel);
      else
        conv2d(p->g, weight, packed.data(), packed.size(), p->mask_or_null(), o, parallel);
      return floats(out);
    };
    const auto check_half = [&](const std::vector<float>& got) {
      for (size_t k = 0; k < want.size(); ++k) {
        const double error = std::isnan(got[k]) ? 1e9 : std::abs(got[k] - want[k]) / scale;
        worst = std::max(worst, error);
        CHECK(error <= kHalfError);
      }
    };
    const auto first = run(one, false);
    check_half(first);
    CHECK(first == run(three, false));  // bit for bit
    check_half(run(three, true));
  }
  const HalfKernels* const kernels = selected_half_kernels();
  const std::string name = kernels != nullptr ? kernels->name : "float32 arithmetic";
  MESSAGE(name, ": largest error, relative to the largest output: ", worst);
}

TEST_CASE("in half precision, too, a zero weight never meets its input, and NaN reaches the output") {
  Serial serial;
  for (const Algorithm algorithm : {Algorithm::im2col, Algorithm::direct}) {
    const Forced forced(algorithm);
    Conv2dGeometry g;
    g.in_h = g.in_w = 5;
    g.weight = {3, 2, 1, 1, 1};
    const std::vector<float> weight = {1, 0, 2, 0, 3, 4};
    std::vector<Half> input(50, to_half(1.0f)), out(75);
    std::fill(input.begin() + 25, input.end(), to_half(NAN));
    HalfConv2dOperands o;
    o.input = {input.data(), {50, 25, 5, 1}};
    o.output = out.data();
    const auto packed = pack_weight(weight.data(), g.weight);
    PackedWeight prepared;
    conv2d(g, prepared, packed.data(), packed.size(), nullptr, o, serial);
    for (size_t i = 0; i < 50; ++i) CHECK(to_float(out[i]) == static_cast<float>(i / 25 + 1));
    for (size_t i = 50; i < 75; ++i) CHECK(std::isnan(to_float(out[i])));
  }
}

TEST_CASE("zero weights are skipped, not multiplied: an infinite input they meet leaves no NaN") {
  Conv2dGeometry g;
  g.in_h = g.in_w = 5;
  g.weight = {3, 2, 1, 1, 1};
  const std::vector<float> weight = {1, 0, 2, 0, 3, 0};
  std::vector<float> input(50, 1.0f);
  for (size_t i = 25; i < 50; ++i) input[i] = INFINITY;
  auto out = poisoned(75);
  Conv2dOperands o;
  o.input = {input.data(), {50, 25, 5, 1}};
  o.output = out.data();
  const auto packed = pack_weight(weight.data(), g.weight);
  PackedWeight prepared;
  Serial serial;
  conv2d(g, prepared, packed.data(), packed.size(), nullptr, o, serial);
  for (size_t i = 0; i < 75; ++i) CHECK(out[i] == static_cast<float>(i / 25 + 1));
}

TEST_CASE("in a tail, too, a zero weight never meets its input") {
  // One column more than fills vectors, hardly a zero, and a last row that only the second block of filters
  // uses.
  constexpr int64_t channels = 103, columns = 17;
  Conv2dGeometry g;
  g.in_h = 1;
  g.in_w = columns;
  g.weight = {8, channels, 1, 1, 1};
  std::vector<float> weight(8 * channels, 1.0f), input(channels * columns, 1.0f);
  for (int64_t f = 0; f < 4; ++f) weight[static_cast<size_t>(f * channels + channels - 1)] = 0.0f;
  std::fill(input.end() - columns, input.end(), INFINITY);
  auto out = poisoned(8 * columns);
  Conv2dOperands o;
  o.input = {input.data(), {channels * columns, columns, columns, 1}};
  o.output = out.data();
  const auto packed = pack_weight(weight.data(), g.weight);
  PackedWeight prepared;
  Serial serial;
  conv2d(g, prepared, packed.data(), packed.size(), nullptr, o, serial);
  for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == (i < 4 * columns ? channels - 1.0f : INFINITY));
}

TEST_CASE("NaN in the input reaches the output through every activation") {
  Serial serial;
  for (const char* name : {"none", "relu", "relu6", "silu", "leaky_relu", "hardswish", "sigmoid"}) {
    CAPTURE(name);
    Conv2dGeometry g;
    g.in_h = 1;
    g.in_w = 40;
    g.weight = {1, 1, 1, 1, 1};
    const float weight = 1;
    std::vector<float> input(40, NAN), out(40, 0.0f);
    Conv2dOperands o;
    o.input = {input.data(), {40, 40, 40, 1}};
    o.output = out.data();
    o.activation = parse_activation(name);
    conv2d(g, &weight, nullptr, o, serial);
    for (const float x : out) CHECK(std::isnan(x));
  }
}

TEST_CASE("several threads may share one packed weight") {
  Random r(11);
  auto p = draw(r);
  const auto packed = pack_weight(p->weight.data(), p->g.weight);
  PackedWeight weight;
  std::vector<std::vector<float>> outs(4, poisoned(p->outputs()));
  std::vector<std::thread> threads;
  for (auto& out : outs)
    threads.emplace_back([&] {
      Conv2dOperands o = p->operands;
      o.output = out.data();
      Serial serial;
      for (int i = 0; i < 20; ++i)
        conv2d(p->g, weight, packed.data(), packed.size(), p->mask_or_null(), o, serial);
    });
  for (auto& t : threads) t.join();
  for (const auto& out : outs) CHECK(out == outs[0]);
}

TEST_CASE("bad geometry and a packed weight of another shape are refused in words") {
  Conv2dGeometry g;
  g.in_h = g.in_w = 4;
  g.weight = {2, 2, 3, 3, 1};
  const std::vector<float> w(36, 1.0f), input(32, 1.0f);
  std::vector<float> out(64);
  Conv2dOperands o;
  o.input = {input.data(), {32, 16, 4, 1}};
  o.output = out.data();
  const auto packed = pack_weight(w.data(), g.weight);
  PackedWeight weight;
  Serial serial;
  const auto message = [&](const Conv2dGeometry& bad) -> std::string {
    try {
      conv2d(bad, weight, packed.data(), packed.size(), nullptr, o, serial);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message(g).empty());
  Conv2dGeometry bad = g;
  bad.weight = {4, 1, 3, 3, 1};  // as many weights, another shape: also after a first good call
  CHECK(message(bad).find("packed weight has shape (2, 2, 3, 3)") != std::string::npos);
  bad = g;
  bad.in_h = 2;
  CHECK(message(bad).find("smaller than the kernel") != std::string::npos);
  bad = g;
  bad.stride_w = 0;
  CHECK(message(bad).find("stride (1, 0)") != std::string::npos);
  CHECK_THROWS_AS(parse_activation("gelu"), Error);
}

TEST_CASE("outputs larger than the caches are what smaller ones are, bit for bit") {
  // Those of one image stay in a cache, those of all go to memory past them, unless they are not aligned.
  Random r(31);
  Conv2dGeometry all;
  all.batch = 8;
  all.in_h = all.in_w = 112;
  all.pad_h = all.pad_w = 1;
  all.weight = {22, 3, 3, 3, 1};
  Conv2dGeometry one = all;
  one.batch = 1;
  const int64_t image = 3 * 112 * 112, pixels = 112 * 112, result = 22 * pixels;
  const auto input = r.normals(8 * image), bias = r.normals(22), residual = r.normals(8 * result);
  const auto weight = r.weight(all.weight);
  const auto packed = pack_weight(weight.data(), all.weight);
  AlignedBuffer aligned;
  float* const memory = aligned.reserve(static_cast<size_t>(8 * result + 1));
  for (const Algorithm algorithm : {Algorithm::im2col, Algorithm::direct}) {
    const Forced forced(algorithm);
    PackedWeight prepared;
    for (const bool add : {false, true}) {
      Conv2dOperands operands;
      operands.bias = bias.data();
      operands.activation = Activation::relu;
      const auto run = [&](const Conv2dGeometry& g, int64_t n, float* out, Parallel& parallel) {
        operands.input = {input.data() + n * image, {image, pixels, 112, 1}};
        operands.residual = add ? residual.data() + n * result : nullptr;
        operands.output = out;
        conv2d(g, prepared, packed.data(), packed.size(), nullptr, operands, parallel);
      };
      ThreadPool one_thread(1), two_threads(2);
      std::vector<float> want(static_cast<size_t>(8 * result));
      for (int64_t n = 0; n < 8; ++n) run(one, n, want.data() + n * result, one_thread);
      for (const int64_t offset : {0, 1}) {
        for (ThreadPool* const pool : {&one_thread, &two_threads}) {
          std::fill_n(memory, 8 * result + 1, NAN);
          run(all, 0, memory + offset, *pool);
          CHECK(std::equal(want.begin(), want.end(), memory + offset));
        }
      }
    }
  }
}

TEST_CASE("an algorithm can be forced on all layers and preferred for one") {
  Random r(5);
  Conv2dGeometry g;
  g.in_h = g.in_w = 12;
  g.weight = {8, 8, 3, 3, 1};
  g.pad_h = g.pad_w = 1;
  const auto input = r.normals(8 * 144), w = r.normals(8 * 8 * 9);
  const auto packed = pack_weight(w.data(), g.weight);
  const PackedInfo info = inspect_packed(packed.data(), packed.size());
  const uint64_t checksum = info.checksum;
  const auto decide = [&] { return decide_algorithm(g, info, nullptr); };
  PackedWeight weight;
  Serial serial;
  const auto run = [&] {
    auto out = poisoned(8 * 144);
    Conv2dOperands o;
    o.input = {input.data(), {8 * 144, 144, 12, 1}};
    o.output = out.data();
    conv2d(g, weight, packed.data(), packed.size(), nullptr, o, serial);
    return out;
  };
  {
    const Forced forced(Algorithm::im2col);
    CHECK(decide() == Algorithm::im2col);
    const auto exact = run();
    force_algorithm(Algorithm::winograd4);
    CHECK(decide() == Algorithm::winograd4);
    const auto fast = run();  // the plan made for im2col is not used again
    CHECK(fast != exact);
    check_close(fast, exact, 72, true);
    g.stride_h = 2;                        // 2x3 taps of each phase
    CHECK(decide() == Algorithm::im2col);  // Winograd does not apply
    g.stride_h = 1;
  }
  const Forced none(Algorithm::automatic);
  for (const Algorithm a : {Algorithm::im2col, Algorithm::direct, Algorithm::winograd2}) {
    prefer_algorithm(checksum, 12, 12, a);
    CHECK(decide() == a);
    g.in_h = 11;
    CHECK(decide() == cheapest_algorithm(g, info, nullptr));  // another size
    g.in_h = 12;
  }
  g.dilation_w = 2;
  CHECK_THROWS_AS(decide(), Error);
  prefer_algorithm(checksum, 12, 12, Algorithm::automatic);
  CHECK(algorithm_applies(decide(), g));
  CHECK(parse_algorithm("winograd4") == Algorithm::winograd4);
  CHECK_THROWS_AS(parse_algorithm("fft"), Error);
}
