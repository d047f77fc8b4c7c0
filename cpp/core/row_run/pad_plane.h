// SPDX-License-Identifier: Apache-2.0
// Copies one image plane with neighbouring pixels into a padded one.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/row_run/row_run.h"

namespace semisparse {

template <class S>
void pad_plane(const PadArgs& a) {
  const int64_t top = a.pad_h * a.pitch, plane = (a.height + 2 * a.pad_h) * a.pitch;
  const auto zero = typename S::Reg{};
  // The right border of a row and the left border of the next are one stretch; so are those of the first and
  // last row with the rows of zeros beyond.
  const auto clear = [&](float* p, int64_t count) {
    for (; count >= S::lanes; p += S::lanes, count -= S::lanes) S::storeu(p, zero);
    for (; count > 0; --count) *p++ = 0.0f;
  };
  clear(a.out, top + a.pad_w);
  clear(a.out + plane - top - a.pad_w, top + a.pad_w);
  const float* from = a.in;
  float* to = a.out + top + a.pad_w;
  const int64_t whole = a.width / S::lanes * S::lanes;
  for (int64_t y = 0; y < a.height; ++y, from += a.stride_h, to += a.pitch) {
    for (int64_t x = 0; x < whole; x += S::lanes) S::storeu(to + x, S::loadu(from + x));
    if (whole < a.width)
      S::store_n(to + whole, static_cast<int>(a.width - whole),
                 S::load_n(from + whole, static_cast<int>(a.width - whole)));
    if (y + 1 < a.height)
      for (int64_t x = a.width; x < a.pitch; ++x) to[x] = 0.0f;
  }
}

}  // namespace semisparse
