// SPDX-License-Identifier: Apache-2.0
// Copies rows of an image plane into the middle of zeros.
#pragma once

#include <cstdint>

#include "core/row_run/row_run.h"

namespace semisparse {

template <class S>
void pad_plane(const PadArgs<typename S::Elem>& args) {
  using Elem = typename S::Elem;
  const PadArgs<Elem> a = args;  // a copy that no store of pixels can change
  const int64_t pitch = a.width + 2 * a.pad_w, whole = a.width / S::lanes * S::lanes;
  const int rest = static_cast<int>(a.width - whole);
  const auto clear = [](Elem* p, int64_t count) {
    for (; count >= S::lanes; p += S::lanes, count -= S::lanes) S::storeu(p, S::set1(0.0f));
    for (; count > 0; --count) *p++ = Elem{};
  };
  Elem* to = a.out;
  for (int64_t row = a.first_row; row < a.last_row; ++row, to += pitch) {
    const int64_t y = row - a.pad_h;
    if (y < 0 || y >= a.height) {
      clear(to, pitch);
      continue;
    }
    for (int64_t x = 0; x < a.pad_w; ++x) to[x] = to[pitch - 1 - x] = Elem{};
    const Elem* from = a.in + y * a.stride_h;
    Elem* pixels = to + a.pad_w;
    if (a.stride_w != 1) {
      for (int64_t x = 0; x < a.width; ++x) pixels[x] = from[x * a.stride_w];
      continue;
    }
    const Elem* const end = from + whole;
    for (; end - from >= 4 * S::lanes; from += 4 * S::lanes, pixels += 4 * S::lanes) {
      const auto v0 = S::loadu(from), v1 = S::loadu(from + S::lanes);
      const auto v2 = S::loadu(from + 2 * S::lanes), v3 = S::loadu(from + 3 * S::lanes);
      S::storeu(pixels, v0);
      S::storeu(pixels + S::lanes, v1);
      S::storeu(pixels + 2 * S::lanes, v2);
      S::storeu(pixels + 3 * S::lanes, v3);
    }
    if (end - from >= 2 * S::lanes) {
      const auto v0 = S::loadu(from), v1 = S::loadu(from + S::lanes);
      S::storeu(pixels, v0);
      S::storeu(pixels + S::lanes, v1);
      from += 2 * S::lanes, pixels += 2 * S::lanes;
    }
    if (from != end) {
      S::storeu(pixels, S::loadu(from));
      from += S::lanes, pixels += S::lanes;
    }
    if (rest > 0) S::store_n(pixels, rest, S::load_n(from, rest));
  }
}

}  // namespace semisparse
