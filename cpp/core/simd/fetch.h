// SPDX-License-Identifier: Apache-2.0
// Memory that is read soon, where the hardware prefetcher of x86 does not see it coming. On ARM it would cost
// instructions, unmeasured.
#pragma once

#include <cstdint>

namespace semisparse {

// `count` elements from `from` on, a cache line at a time. Locality as in GCC: 2 to the L2 cache, 3 to the L1
// cache too.
template <class S, int Locality>
SEMISPARSE_INLINE void fetch(const typename S::Elem* from, int64_t count) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(typename S::Elem));
  if constexpr (S::rows_per_step > 1)
    for (int64_t x = 0; x < count; x += line) __builtin_prefetch(from + x, 0, Locality);
}

}  // namespace semisparse
