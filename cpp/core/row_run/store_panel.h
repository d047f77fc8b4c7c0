// SPDX-License-Identifier: Apache-2.0
// From a panel's sums to output pixels: computed columns spread out, skipped ones filled, residual added,
// activation.
#pragma once

#include "core/row_run/row_run.h"
#include "core/simd/activation.h"

namespace semisparse {

template <class S, class Act>
void store_panel_with(const StoreArgs& a) {
  using Reg = typename S::Reg;
  const StoreSegment* segment = &a.plan->segments[a.panel->first_segment];
  const StoreSegment* const end = segment + a.panel->segments;
  const Reg fill = S::set1(a.fill);
  for (; segment != end; ++segment) {
    Reg y = fill;
    if (segment->neighbours) {
      y = S::loadu(a.acc + segment->acc);
    } else if (segment->mask != 0) {
      const Reg kept =
          S::permute(S::loadu(a.acc + segment->acc), S::index(&a.plan->indices[segment->index], 0));
      y = S::select(S::mask(segment->mask), kept, fill);
    }
    float* out = a.output + segment->out;
    if (segment->count == S::lanes) {
      if (a.residual != nullptr) y = S::add(y, S::loadu(a.residual + segment->out));
      S::storeu(out, Act::template apply<S>(y));
    } else {
      if (a.residual != nullptr) y = S::add(y, S::load_n(a.residual + segment->out, segment->count));
      S::store_n(out, segment->count, Act::template apply<S>(y));
    }
  }
}

template <class S>
void store_panel(const StoreArgs& args) {
  with_activation(args.activation, [&](auto act) { store_panel_with<S, decltype(act)>(args); });
}

}  // namespace semisparse
