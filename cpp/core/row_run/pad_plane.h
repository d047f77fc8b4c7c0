// SPDX-License-Identifier: Apache-2.0
// Copies rows of an image plane into the middle of zeros.
#pragma once

#include <cstdint>

#include "core/row_run/row_run.h"
#include "core/simd/fetch.h"

namespace semisparse {

template <class S>
void pad_plane(const PadArgs<typename S::Elem>& a) {
  using Elem = typename S::Elem;
  // Copies that no store of pixels can change; one by one, see store_panel_with.
  const int64_t width = a.width, pad_w = a.pad_w, pitch = width + 2 * pad_w,
                whole = width / S::lanes * S::lanes;
  const int64_t height = a.height, pad_h = a.pad_h, stride_h = a.stride_h, stride_w = a.stride_w;
  const int64_t last_row = a.last_row;
  const Elem *const in = a.in, *const next = a.next;
  const int rest = static_cast<int>(width - whole);
  const auto clear = [](Elem* p, int64_t count) {
    for (; count >= S::lanes; p += S::lanes, count -= S::lanes) S::storeu(p, S::set1(0.0f));
    for (; count > 0; --count) *p++ = Elem{};
  };
  Elem* to = a.out;
  for (int64_t row = a.first_row; row < last_row; ++row, to += pitch) {
    const int64_t y = row - pad_h;
    if (y < 0 || y >= height) {
      clear(to, pitch);
      continue;
    }
    for (int64_t x = 0; x < pad_w; ++x) to[x] = to[pitch - 1 - x] = Elem{};
    const Elem* from = in + y * stride_h;
    Elem* pixels = to + pad_w;
    if (stride_w != 1) {
      for (int64_t x = 0; x < width; ++x) pixels[x] = from[x * stride_w];
      continue;
    }
    // A few rows of one plane are too short a stream for the hardware prefetcher.
    if (next != nullptr) fetch<S, 2>(next + y * stride_h, width);
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
