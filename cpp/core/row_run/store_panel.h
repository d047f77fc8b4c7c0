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
  const bool residual = a.residual[0] != nullptr;
  const int filters = a.filters;
  // Each segment for all filters of the block: what the plan says about it is read once.
  while (segment != end) {
    const int32_t out = segment->out, count = segment->count;
    const float* acc = a.acc + segment->acc;
    if (segment->run > 0) {
      const auto run = [&](auto computed, auto with_residual) {
        for (int f = 0; f < filters; ++f, acc += a.acc_stride)
          store_run<S, Act, computed, with_residual>(computed ? acc : nullptr, S::set1(a.fill[f]),
                                                     with_residual ? a.residual[f] + out : nullptr,
                                                     a.output[f] + out, segment->run);
      };
      const std::true_type yes;
      const std::false_type no;
      if (segment->neighbours)
        residual ? run(yes, yes) : run(yes, no);
      else
        residual ? run(no, yes) : run(no, no);
      segment += segment->run;
      continue;
    }
    const auto each_filter = [&](auto value) {
      for (int f = 0; f < filters; ++f, acc += a.acc_stride) {
        Reg y = value(acc, f);
        float* const to = a.output[f] + out;
        if (count == S::lanes) {
          if (residual) y = S::add(y, S::loadu(a.residual[f] + out));
          S::storeu(to, Act::template apply<S>(y));
        } else {
          if (residual) y = S::add(y, S::load_n(a.residual[f] + out, count));
          S::store_n(to, count, Act::template apply<S>(y));
        }
      }
    };
    if (segment->neighbours) {
      each_filter([](const float* sums, int) { return S::loadu(sums); });
    } else if (segment->mask == 0) {
      each_filter([&](const float*, int f) { return S::set1(a.fill[f]); });
    } else {
      const auto index = S::index(&a.plan->indices[static_cast<size_t>(segment->index)], 0);
      const auto mask = S::mask(segment->mask);
      each_filter([&](const float* sums, int f) {
        return S::select(mask, S::permute(S::loadu(sums), index), S::set1(a.fill[f]));
      });
    }
    ++segment;
  }
}

template <class S>
void store_panel(const StoreArgs& args) {
  with_activation(args.activation, [&](auto act) { store_panel_with<S, decltype(act)>(args); });
}

}  // namespace semisparse
