// SPDX-License-Identifier: Apache-2.0
// From a panel's sums to output pixels: computed columns spread out, skipped ones filled, residual added,
// activation.
#pragma once

#include "core/row_run/row_run.h"
#include "core/simd/activation.h"

namespace semisparse {

// `count` vectors of neighbouring pixels. `from`: their sums, or null where all are filled.
template <class S, class Act, bool Residual>
SEMISPARSE_INLINE void store_run(const float* from, typename S::Reg fill, const float* residual, float* out,
                                 int32_t count) {
  const auto vector = [&](typename S::Reg y, int32_t v) {
    if constexpr (Residual) y = S::add(y, S::loadu(residual + v * S::lanes));
    return Act::template apply<S>(y);
  };
  // Two at a time: their loads and stores are pairs on ARM.
  int32_t v = 0;
  if (from != nullptr) {
    for (; v + 1 < count; v += 2) {
      const auto first = S::loadu(from + v * S::lanes), second = S::loadu(from + (v + 1) * S::lanes);
      S::storeu(out + v * S::lanes, vector(first, v));
      S::storeu(out + (v + 1) * S::lanes, vector(second, v + 1));
    }
    if (v < count) S::storeu(out + v * S::lanes, vector(S::loadu(from + v * S::lanes), v));
  } else {
    for (; v + 1 < count; v += 2) {
      S::storeu(out + v * S::lanes, vector(fill, v));
      S::storeu(out + (v + 1) * S::lanes, vector(fill, v + 1));
    }
    if (v < count) S::storeu(out + v * S::lanes, vector(fill, v));
  }
}

template <class S, class Act>
void store_panel_with(const StoreArgs& a) {
  using Reg = typename S::Reg;
  const StoreSegment* segment = &a.plan->segments[static_cast<size_t>(a.panel->first_segment)];
  const StoreSegment* const end = segment + a.panel->segments;
  const Reg fill = S::set1(a.fill);
  while (segment != end) {
    float* const out = a.output + segment->out;
    if (segment->run > 0) {
      const float* const from = segment->neighbours ? a.acc + segment->acc : nullptr;
      if (a.residual != nullptr)
        store_run<S, Act, true>(from, fill, a.residual + segment->out, out, segment->run);
      else
        store_run<S, Act, false>(from, fill, nullptr, out, segment->run);
      segment += segment->run;
      continue;
    }
    Reg y = fill;
    if (segment->neighbours) {
      y = S::loadu(a.acc + segment->acc);
    } else if (segment->mask != 0) {
      const Reg kept =
          S::permute(S::loadu(a.acc + segment->acc), S::index(&a.plan->indices[segment->index], 0));
      y = S::select(S::mask(segment->mask), kept, fill);
    }
    if (segment->count == S::lanes) {
      if (a.residual != nullptr) y = S::add(y, S::loadu(a.residual + segment->out));
      S::storeu(out, Act::template apply<S>(y));
    } else {
      if (a.residual != nullptr) y = S::add(y, S::load_n(a.residual + segment->out, segment->count));
      S::store_n(out, segment->count, Act::template apply<S>(y));
    }
    ++segment;
  }
}

template <class S>
void store_panel(const StoreArgs& args) {
  with_activation(args.activation, [&](auto act) { store_panel_with<S, decltype(act)>(args); });
}

}  // namespace semisparse
