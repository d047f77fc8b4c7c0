// SPDX-License-Identifier: Apache-2.0
// Cuts a padded plane into phases, so that the pixels of a strided convolution lie side by side.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/row_run/row_run.h"

namespace semisparse {

// A row's pixels in turn to two phases; `pad` zeros come before the `pixels` of `from`, others follow.
template <class S>
SEMISPARSE_INLINE void split_row_in_two(const typename S::Elem* from, int64_t pixels, int64_t pad,
                                        int64_t pitch, typename S::Elem* even, typename S::Elem* odd) {
  using Elem = typename S::Elem;
  int64_t x = 0, at = -pad;  // of the next two pixels: in the phases, in the row
  for (; at < 0 && x < pitch; ++x, at += 2) {
    even[x] = Elem{};
    odd[x] = at + 1 == 0 && pixels > 0 ? from[0] : Elem{};
  }
  const int64_t whole = std::min(pitch - S::lanes, x + (pixels - at) / 2 - S::lanes);
  for (; x <= whole; x += S::lanes, at += 2 * S::lanes) {
    const auto low = S::loadu(from + at), high = S::loadu(from + at + S::lanes);
    S::storeu(even + x, S::even(low, high));
    S::storeu(odd + x, S::odd(low, high));
  }
  const auto count = [](int64_t left) { return static_cast<int>(std::clamp<int64_t>(left, 0, S::lanes)); };
  for (; x < pitch; x += S::lanes, at += 2 * S::lanes) {
    const int first = count(pixels - at), second = count(pixels - at - S::lanes), out = count(pitch - x);
    const auto low = first > 0 ? S::load_n(from + at, first) : S::set1(0.0f);
    const auto high = second > 0 ? S::load_n(from + at + S::lanes, second) : S::set1(0.0f);
    S::store_n(even + x, out, S::even(low, high));
    S::store_n(odd + x, out, S::odd(low, high));
  }
}

template <class S>
void split_plane(const SplitArgs<typename S::Elem>& a) {
  using Elem = typename S::Elem;
  const int64_t line_floats = a.pitch * a.stride_x;
  const int64_t pixels = std::min(a.width, line_floats - a.pad_w);
  const int64_t padded_rows = a.rows * a.stride_y;
  for (int64_t i = 0; i < line_floats + 2 * S::lanes; ++i) a.line[i] = Elem{};
  for (int64_t row = 0; row < padded_rows; ++row) {
    Elem* const to = a.out + row % a.stride_y * a.stride_x * a.phase_floats + row / a.stride_y * a.pitch;
    const int64_t y = row - a.pad_h;
    if (y < 0 || y >= a.height) {
      for (int64_t phase = 0; phase < a.stride_x; ++phase)
        std::fill_n(to + phase * a.phase_floats, a.pitch, Elem{});
      continue;
    }
    const Elem* const from = a.in + y * a.stride_h;
    if (a.stride_x == 2 && a.stride_w == 1) {
      split_row_in_two<S>(from, pixels, a.pad_w, a.pitch, to, to + a.phase_floats);
      continue;
    }
    Elem* const line = a.line + a.pad_w;
    if (a.stride_w == 1)
      std::copy_n(from, pixels, line);
    else
      for (int64_t x = 0; x < pixels; ++x) line[x] = from[x * a.stride_w];
    if (a.stride_x == 1) {
      std::copy_n(a.line, a.pitch, to);
    } else if (a.stride_x == 2) {
      for (int64_t x = 0; x < a.pitch; x += S::lanes) {
        const auto low = S::loadu(a.line + 2 * x), high = S::loadu(a.line + 2 * x + S::lanes);
        const int count = static_cast<int>(std::min<int64_t>(S::lanes, a.pitch - x));
        if (count == S::lanes) {
          S::storeu(to + x, S::even(low, high));
          S::storeu(to + a.phase_floats + x, S::odd(low, high));
        } else {
          S::store_n(to + x, count, S::even(low, high));
          S::store_n(to + a.phase_floats + x, count, S::odd(low, high));
        }
      }
    } else {
      for (int64_t phase = 0; phase < a.stride_x; ++phase)
        for (int64_t x = 0; x < a.pitch; ++x) to[phase * a.phase_floats + x] = a.line[x * a.stride_x + phase];
    }
  }
}

}  // namespace semisparse
