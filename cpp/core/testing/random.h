// SPDX-License-Identifier: Apache-2.0
// Random shapes, weights and masks for the C++ tests. Every draw is printed by the test that fails.
#pragma once

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/conv2d/conv2d.h"

namespace semisparse::testing {

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  bool chance(double p) { return std::uniform_real_distribution<>(0, 1)(engine_) < p; }
  float normal() { return std::normal_distribution<float>()(engine_); }
  std::vector<float> normals(int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = normal();
    return v;
  }
  template <class T>
  T one_of(std::initializer_list<T> options) {
    return *(options.begin() + between(0, static_cast<int64_t>(options.size()) - 1));
  }

  // Dense, unstructured, all zero, whole kernels gone, a few patterns, patterns shared by 4 filters, one
  // filter only.
  std::vector<float> weight(const WeightShape& s) {
    auto w = normals(s.elements());
    const int64_t taps = s.taps(), ic = s.in_channels_per_group;
    const int kind = static_cast<int>(between(0, 6));
    std::vector<std::vector<bool>> library(4, std::vector<bool>(static_cast<size_t>(taps)));
    for (auto& pattern : library)
      for (int64_t t = 0; t < taps; ++t) pattern[static_cast<size_t>(t)] = chance(0.45);
    const int64_t only = between(0, s.out_channels - 1);
    for (int64_t f = 0; f < s.out_channels; ++f) {
      for (int64_t c = 0; c < ic; ++c) {
        const bool kernel = chance(0.3);
        const size_t p =
            kind == 5 ? static_cast<size_t>((f / 4 * 7 + c) % 4) : static_cast<size_t>(between(0, 3));
        for (int64_t t = 0; t < taps; ++t) {
          float& x = w[static_cast<size_t>((f * ic + c) * taps + t)];
          if (kind == 1 && chance(0.6)) x = 0.0f;
          if (kind == 2) x = 0.0f;
          if (kind == 3 && !kernel) x = 0.0f;
          if ((kind == 4 || kind == 5) && !library[p][static_cast<size_t>(t)]) x = 0.0f;
          if (kind == 6 && f != only) x = chance(0.1) ? -0.0f : 0.0f;
        }
      }
    }
    return w;
  }

  // Everything, nothing, single pixels, runs.
  std::vector<uint8_t> mask(int64_t pixels) {
    std::vector<uint8_t> m(static_cast<size_t>(pixels), 1);
    const int kind = static_cast<int>(between(0, 4));
    const double p = one_of({0.1, 0.3, 0.7, 0.95});
    const int64_t run = kind == 4 ? 16 : kind == 3 ? 4 : 1;
    bool gone = false;
    for (int64_t i = 0; i < pixels; ++i) {
      if (i % run == 0) gone = chance(p);
      if (kind == 1 || (kind >= 2 && gone)) m[static_cast<size_t>(i)] = 0;
    }
    return m;
  }

 private:
  std::mt19937 engine_;
};

// What an output holds before a run, so that a pixel left unwritten shows.
inline std::vector<float> poisoned(int64_t n) {
  return std::vector<float>(static_cast<size_t>(n), std::numeric_limits<float>::quiet_NaN());
}

}  // namespace semisparse::testing
