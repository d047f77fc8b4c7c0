// SPDX-License-Identifier: Apache-2.0
// The loops of kernels.h for any Vec.
#pragma once

#include <cstdint>

#include "core/arrays/kernels.h"
#include "core/simd/activation.h"

namespace semisparse {

template <class S>
struct ArrayLoops {
  using Reg = typename S::Reg;
  static constexpr int64_t lanes = S::lanes;

  // value(x, load) for whole vectors from x = 0 on, then once for what is left.
  template <class Value>
  static SEMISPARSE_INLINE void each(int64_t n, float* out, Value value) {
    int64_t x = 0;
    for (; x + lanes <= n; x += lanes)
      S::storeu(out + x, value(x, [](const float* p) { return S::loadu(p); }));
    if (x == n) return;
    const int rest = static_cast<int>(n - x);
    S::store_n(out + x, rest, value(x, [rest](const float* p) { return S::load_n(p, rest); }));
  }

  static void activate(Activation activation, const float* in, int64_t n, float* out) {
    with_activation(activation, [&](auto op) {
      each(n, out, [&](int64_t x, auto load) { return decltype(op)::template apply<S>(load(in + x)); });
    });
  }

  template <class Op>
  static SEMISPARSE_INLINE void combine_with(Op op, const float* a, int64_t a_step, const float* b,
                                             int64_t b_step, int64_t n, float* out) {
    if (a_step != 0 && b_step != 0) {
      each(n, out, [&](int64_t x, auto load) { return op(load(a + x), load(b + x)); });
    } else if (a_step != 0) {
      const Reg same = S::set1(*b);
      each(n, out, [&](int64_t x, auto load) { return op(load(a + x), same); });
    } else {
      const Reg same = S::set1(*a);
      each(n, out, [&](int64_t x, auto load) { return op(same, b_step != 0 ? load(b + x) : S::set1(*b)); });
    }
  }

  static void combine(Arithmetic op, const float* a, int64_t a_step, const float* b, int64_t b_step,
                      int64_t n, float* out) {
    switch (op) {
      case Arithmetic::add:
        return combine_with([](Reg p, Reg q) { return S::add(p, q); }, a, a_step, b, b_step, n, out);
      case Arithmetic::subtract:
        return combine_with([](Reg p, Reg q) { return S::sub(p, q); }, a, a_step, b, b_step, n, out);
      case Arithmetic::multiply:
        return combine_with([](Reg p, Reg q) { return S::mul(p, q); }, a, a_step, b, b_step, n, out);
      case Arithmetic::divide:
        return combine_with([](Reg p, Reg q) { return S::div(p, q); }, a, a_step, b, b_step, n, out);
    }
  }

  static SEMISPARSE_INLINE float total(Reg r) {
    float t[lanes];
    S::storeu(t, r);
    for (int64_t half = lanes / 2; half > 0; half /= 2)
      for (int64_t i = 0; i < half; ++i) t[i] += t[i + half];
    return t[0];
  }

  static float sum(const float* in, int64_t n) {
    Reg even = S::set1(0.0f), odd = even;  // two, for an addition takes several cycles
    int64_t x = 0;
    for (; x + 2 * lanes <= n; x += 2 * lanes) {
      even = S::add(even, S::loadu(in + x));
      odd = S::add(odd, S::loadu(in + x + lanes));
    }
    if (x + lanes <= n) {
      even = S::add(even, S::loadu(in + x));
      x += lanes;
    }
    odd = S::add(odd, S::load_n(in + x, static_cast<int>(n - x)));
    return total(S::add(even, odd));
  }

  static void repeat2(const float* in, int64_t n, float* out) {
    int64_t x = 0;
    for (; x + lanes <= n; x += lanes) {
      const Reg r = S::loadu(in + x);
      S::storeu(out + 2 * x, S::zip_low(r, r));
      S::storeu(out + 2 * x + lanes, S::zip_high(r, r));
    }
    for (; x < n; ++x) out[2 * x] = out[2 * x + 1] = in[x];
  }

  // `V` vectors side by side: their chains of maxima and sums do not wait for each other.
  template <int V, class Load, class Store>
  static SEMISPARSE_INLINE void softmax_block(const float* in, int64_t in_step, int64_t count, float* out,
                                              int64_t out_step, Load load, Store store) {
    Reg largest[V], sum[V];
    for (int v = 0; v < V; ++v) {
      largest[v] = load(in + v * lanes);
      sum[v] = S::set1(0.0f);
    }
    for (int64_t i = 1; i < count; ++i)
      for (int v = 0; v < V; ++v) largest[v] = S::maximum(largest[v], load(in + i * in_step + v * lanes));
    for (int64_t i = 0; i < count; ++i)
      for (int v = 0; v < V; ++v) {
        const Reg e = exp<S>(S::sub(load(in + i * in_step + v * lanes), largest[v]));
        sum[v] = S::add(sum[v], e);
        store(out + i * out_step + v * lanes, e);
      }
    for (int v = 0; v < V; ++v) sum[v] = S::div(S::set1(1.0f), sum[v]);
    for (int64_t i = 0; i < count; ++i)
      for (int v = 0; v < V; ++v) {
        float* const to = out + i * out_step + v * lanes;
        store(to, S::mul(load(to), sum[v]));
      }
  }

  static void softmax_columns(const float* in, int64_t in_step, int64_t count, int64_t width, float* out,
                              int64_t out_step) {
    constexpr int together = 4;
    const auto load = [](const float* p) { return S::loadu(p); };
    const auto store = [](float* p, Reg r) { S::storeu(p, r); };
    int64_t x = 0;
    for (; x + together * lanes <= width; x += together * lanes)
      softmax_block<together>(in + x, in_step, count, out + x, out_step, load, store);
    for (; x + lanes <= width; x += lanes)
      softmax_block<1>(in + x, in_step, count, out + x, out_step, load, store);
    if (x == width) return;
    const int rest = static_cast<int>(width - x);
    softmax_block<1>(
        in + x, in_step, count, out + x, out_step, [rest](const float* p) { return S::load_n(p, rest); },
        [rest](float* p, Reg r) { S::store_n(p, rest, r); });
  }

  static void softmax_row(const float* in, int64_t count, float* out) {
    float largest = in[0];
    if (count >= lanes) {
      Reg most = S::loadu(in + count - lanes);  // some entries count twice: a maximum does not mind
      for (int64_t x = 0; x + lanes <= count; x += lanes) most = S::maximum(most, S::loadu(in + x));
      float t[lanes];
      S::storeu(t, most);
      largest = t[0];
      for (int64_t i = 1; i < lanes; ++i) largest = t[i] > largest || t[i] != t[i] ? t[i] : largest;
    } else {
      for (int64_t i = 1; i < count; ++i) largest = in[i] > largest || in[i] != in[i] ? in[i] : largest;
    }
    const Reg shift = S::set1(largest);
    each(count, out, [&](int64_t x, auto load) { return exp<S>(S::sub(load(in + x), shift)); });
    const float scale = 1.0f / sum(out, count);
    combine(Arithmetic::multiply, out, 1, &scale, 0, count, out);
  }
};

}  // namespace semisparse
