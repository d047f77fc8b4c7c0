// SPDX-License-Identifier: Apache-2.0
// From a panel's sums to output pixels: computed columns spread out, skipped ones filled, residual added,
// activation.
#pragma once

#include <type_traits>

#include "core/row_run/row_run.h"
#include "core/simd/activation.h"

namespace semisparse {

// `count` vectors of neighbouring pixels, computed with sums at `from`, or filled.
template <class S, class Act, bool Computed, bool Residual>
SEMISPARSE_INLINE void store_run(const float* from, typename S::Reg fill, const float* residual, float* out,
                                 int32_t count) {
  using Reg = typename S::Reg;
  // Two at a time: their loads and stores are pairs on ARM.
  for (; count >= 2; count -= 2) {
    Reg first = fill, second = fill;
    if constexpr (Computed) {
      first = S::loadu(from);
      second = S::loadu(from + S::lanes);
      from += 2 * S::lanes;
    }
    if constexpr (Residual) {
      first = S::add(first, S::loadu(residual));
      second = S::add(second, S::loadu(residual + S::lanes));
      residual += 2 * S::lanes;
    }
    S::storeu(out, Act::template apply<S>(first));
    S::storeu(out + S::lanes, Act::template apply<S>(second));
    out += 2 * S::lanes;
  }
  if (count > 0) {
    Reg last = fill;
    if constexpr (Computed) last = S::loadu(from);
    if constexpr (Residual) last = S::add(last, S::loadu(residual));
    S::storeu(out, Act::template apply<S>(last));
  }
}

template <class S, class Act>
void store_panel_with(const StoreArgs& args) {
  const StoreArgs a = args;  // a copy that no store of pixels can change
  using Reg = typename S::Reg;
  const StoreSegment* segment = &a.plan->segments[static_cast<size_t>(a.panel->first_segment)];
  const StoreSegment* const end = segment + a.panel->segments;
  const Reg fill = S::set1(a.fill);
  while (segment != end) {
    float* const out = a.output + segment->out;
    if (segment->run > 0) {
      const auto run = [&](auto computed, auto residual) {
        store_run<S, Act, computed, residual>(computed ? a.acc + segment->acc : nullptr, fill,
                                              residual ? a.residual + segment->out : nullptr, out,
                                              segment->run);
      };
      const std::true_type yes;
      const std::false_type no;
      if (segment->neighbours)
        a.residual != nullptr ? run(yes, yes) : run(yes, no);
      else
        a.residual != nullptr ? run(no, yes) : run(no, no);
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
