// SPDX-License-Identifier: Apache-2.0
// Activations on vectors. NaN comes out as NaN.
#pragma once

#include "core/conv2d/conv2d.h"

namespace semisparse {

// exp(x) to about 2 ulp: 2^n * p(r), n = round(x / ln 2), r in [-ln2/2, ln2/2], minimax polynomial of degree
// 6 of the Cephes family; ln 2 in two parts so that r is exact. Below the smallest normal the result is
// 0-ish, never NaN.
template <class S>
SEMISPARSE_INLINE typename S::Reg exp(typename S::Reg x) {
  x = S::min(S::set1(88.0f), S::max(S::set1(-87.0f), x));
  const auto n = S::round(S::mul(x, S::set1(1.44269504f)));
  auto r = S::fma(n, S::set1(-0.693359375f), x);
  r = S::fma(n, S::set1(2.12194440e-4f), r);
  auto p = S::set1(1.9875691500e-4f);
  p = S::fma(p, r, S::set1(1.3981999507e-3f));
  p = S::fma(p, r, S::set1(8.3334519073e-3f));
  p = S::fma(p, r, S::set1(4.1665795894e-2f));
  p = S::fma(p, r, S::set1(1.6666665459e-1f));
  p = S::fma(p, r, S::set1(5.0000001201e-1f));
  p = S::fma(S::mul(r, r), p, S::add(r, S::set1(1.0f)));
  return S::mul(p, S::pow2(n));
}

struct NoneOp {
  template <class S>
  static SEMISPARSE_INLINE typename S::Reg apply(typename S::Reg x) {
    return x;
  }
};

struct ReluOp {
  template <class S>
  static SEMISPARSE_INLINE typename S::Reg apply(typename S::Reg x) {
    return S::max(S::set1(0.0f), x);
  }
};

struct Relu6Op {
  template <class S>
  static SEMISPARSE_INLINE typename S::Reg apply(typename S::Reg x) {
    return S::min(S::set1(6.0f), S::max(S::set1(0.0f), x));
  }
};

struct SigmoidOp {
  template <class S>
  static SEMISPARSE_INLINE typename S::Reg apply(typename S::Reg x) {
    const auto one = S::set1(1.0f);
    return S::div(one, S::add(one, exp<S>(S::sub(S::set1(0.0f), x))));
  }
};

struct SiluOp {
  template <class S>
  static SEMISPARSE_INLINE typename S::Reg apply(typename S::Reg x) {
    return S::div(x, S::add(S::set1(1.0f), exp<S>(S::sub(S::set1(0.0f), x))));
  }
};

struct LeakyReluOp {
  template <class S>
  static SEMISPARSE_INLINE typename S::Reg apply(typename S::Reg x) {
    return S::max(S::mul(x, S::set1(0.01f)), x);
  }
};

struct HardswishOp {
  template <class S>
  static SEMISPARSE_INLINE typename S::Reg apply(typename S::Reg x) {
    const auto gate = S::min(S::set1(6.0f), S::max(S::set1(0.0f), S::add(x, S::set1(3.0f))));
    return S::mul(S::mul(x, gate), S::set1(1.0f / 6.0f));
  }
};

// Calls f with the activation's type, so that the choice is made outside the loops.
template <class F>
SEMISPARSE_INLINE void with_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::none:
      return f(NoneOp{});
    case Activation::relu:
      return f(ReluOp{});
    case Activation::relu6:
      return f(Relu6Op{});
    case Activation::silu:
      return f(SiluOp{});
    case Activation::leaky_relu:
      return f(LeakyReluOp{});
    case Activation::hardswish:
      return f(HardswishOp{});
    case Activation::sigmoid:
      return f(SigmoidOp{});
  }
}

}  // namespace semisparse
