// SPDX-License-Identifier: Apache-2.0
// From a panel's sums to output pixels: computed columns spread out, skipped ones filled, residual added,
// activation; rounded to the output's type at the very end.
#pragma once

#include <type_traits>

#include "core/row_run/row_run.h"
#include "core/simd/activation.h"

namespace semisparse {

// 2 * `pairs` vectors of neighbouring pixels, and one more if `odd`: computed with sums at `from`, or filled.
template <class S, class Act, bool Computed, bool Residual, bool Stream>
SEMISPARSE_INLINE void store_run(const float* from, typename S::Float::Reg fill,
                                 const typename S::Elem* residual, typename S::Elem* out, int32_t pairs,
                                 bool odd) {
  using F = typename S::Float;
  using Reg = typename F::Reg;
  const auto store = [](typename S::Elem* to, auto value) {
    if constexpr (Stream)
      S::stream(to, value);
    else
      S::storeu(to, value);
  };
  // Two at a time: their loads and stores are pairs on ARM.
  for (; pairs > 0; --pairs) {
    Reg first = fill, second = fill;
    if constexpr (Computed) {
      first = F::loadu(from);
      second = F::loadu(from + S::lanes);
      from += 2 * S::lanes;
    }
    if constexpr (Residual) {
      first = F::add(first, S::widen(S::loadu(residual)));
      second = F::add(second, S::widen(S::loadu(residual + S::lanes)));
      residual += 2 * S::lanes;
    }
    store(out, S::narrow(Act::template apply<F>(first)));
    store(out + S::lanes, S::narrow(Act::template apply<F>(second)));
    out += 2 * S::lanes;
  }
  if (odd) {
    Reg last = fill;
    if constexpr (Computed) last = F::loadu(from);
    if constexpr (Residual) last = F::add(last, S::widen(S::loadu(residual)));
    store(out, S::narrow(Act::template apply<F>(last)));
  }
}

template <class S, class Act>
void store_panel_with(const StoreArgs<typename S::Elem>& a) {
  // Not a copy of them all: that would read by the vector what was just written by the word, and a load that
  // no store can be forwarded to waits until all pixels before it have left for the cache.
  const size_t acc_stride = a.acc_stride;
  using F = typename S::Float;
  using Reg = typename F::Reg;
  const StoreSegment* segment = &a.plan->segments[static_cast<size_t>(a.panel->first_segment)];
  const StoreSegment* const end = segment + a.panel->segments;
  const bool residual = a.residual[0] != nullptr;
  const int filters = a.filters;
  [[maybe_unused]] const bool stream = a.stream;
  // Each segment for all filters of the block: what the plan says about it is read once.
  while (segment != end) {
    const int32_t out = segment->out, count = segment->count;
    const float* acc = a.acc + segment->acc;
    if (segment->run > 0) {
      const int32_t pairs = segment->run / 2;
      const bool odd = segment->run % 2 != 0;
      const std::true_type yes;
      const std::false_type no;
      const auto run = [&](auto computed, auto with_residual, auto stream) {
        constexpr bool activated = !computed && !with_residual;
        using Last = std::conditional_t<activated, NoneOp, Act>;
        for (int f = 0; f < filters; ++f, acc += acc_stride)
          store_run<S, Last, computed, with_residual, stream>(
              computed ? acc : nullptr, F::set1((activated ? a.activated_fill : a.fill)[f]),
              with_residual ? a.residual[f] + out : nullptr, a.output[f] + out, pairs, odd);
      };
      if constexpr (S::streams) {
        if (stream && segment->neighbours) {
          residual ? run(yes, yes, yes) : run(yes, no, yes);
          segment += segment->run;
          continue;
        }
      }
      if (segment->neighbours)
        residual ? run(yes, yes, no) : run(yes, no, no);
      else
        residual ? run(no, yes, no) : run(no, no, no);
      segment += segment->run;
      continue;
    }
    const auto each_filter = [&](auto value) {
      for (int f = 0; f < filters; ++f, acc += acc_stride) {
        Reg y = value(acc, f);
        typename S::Elem* const to = a.output[f] + out;
        if (count == S::lanes) {
          if (residual) y = F::add(y, S::widen(S::loadu(a.residual[f] + out)));
          S::storeu(to, S::narrow(Act::template apply<F>(y)));
        } else {
          if (residual) y = F::add(y, S::widen(S::load_n(a.residual[f] + out, count)));
          S::store_n(to, count, S::narrow(Act::template apply<F>(y)));
        }
      }
    };
    if (segment->neighbours) {
      each_filter([](const float* sums, int) { return F::loadu(sums); });
    } else if (segment->mask == 0) {
      each_filter([&](const float*, int f) { return F::set1(a.fill[f]); });
    } else {
      const auto index = F::index(&a.plan->indices[static_cast<size_t>(segment->index)], 0);
      const auto mask = F::mask(segment->mask);
      each_filter([&](const float* sums, int f) {
        return F::select(mask, F::permute(F::loadu(sums), index), F::set1(a.fill[f]));
      });
    }
    ++segment;
  }
}

template <class S>
void activate_floats(Activation activation, float* values, int64_t count) {
  using F = typename S::Float;
  with_activation(activation, [&](auto act) {
    for (int64_t i = 0; i < count; i += S::lanes)
      F::storeu(values + i, decltype(act)::template apply<F>(F::loadu(values + i)));
  });
}

template <class S>
void store_panel(const StoreArgs<typename S::Elem>& args) {
  with_activation(args.activation, [&](auto act) { store_panel_with<S, decltype(act)>(args); });
}

}  // namespace semisparse
