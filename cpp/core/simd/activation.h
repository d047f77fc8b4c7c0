// SPDX-License-Identifier: Apache-2.0
// Activations on vectors. NaN comes out as NaN.
#pragma once

#include "core/conv2d/conv2d.h"

namespace semisparse {

// 2^f for f in [0, 1]: minimax polynomial of degree 5 with 2^0 = 1, off by 8.3e-8 of the result at most.
template <class S>
SEMISPARSE_INLINE typename S::Reg mantissa(typename S::Reg f) {
  auto p = S::set1(1.8671300e-3f);
  p = S::fma(p, f, S::set1(9.0170307e-3f));
  p = S::fma(p, f, S::set1(5.5799913e-2f));
  p = S::fma(p, f, S::set1(2.4016444e-1f));
  p = S::fma(p, f, S::set1(6.9315130e-1f));
  return S::fma(p, f, S::set1(1.0f));
}

// 2^t to about 2 ulp. Where the instruction set does not scale by itself, t is limited to [-126, 128).
template <class S>
SEMISPARSE_INLINE typename S::Reg exp2(typename S::Reg t) {
  if constexpr (S::scales) {
    return S::scale(mantissa<S>(S::fraction(t)), t);
  } else {
    t = S::min(S::set1(127.99999f), S::max(S::set1(-126.0f), t));
    const auto n = S::floor(t);
    return S::mul(mantissa<S>(S::sub(t, n)), S::pow2(n));
  }
}

// exp(x) to about 2 ulp and what rounding x / ln 2 costs, half an ulp of it: |x| * 6e-8 of the result.
template <class S>
SEMISPARSE_INLINE typename S::Reg exp(typename S::Reg x) {
  return exp2<S>(S::mul(x, S::set1(1.44269504f)));
}

// exp(-x)
template <class S>
SEMISPARSE_INLINE typename S::Reg exp_of_negative(typename S::Reg x) {
  return exp2<S>(S::mul(x, S::set1(-1.44269504f)));
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
    return S::div(one, S::add(one, exp_of_negative<S>(x)));
  }
};

struct SiluOp {
  template <class S>
  static SEMISPARSE_INLINE typename S::Reg apply(typename S::Reg x) {
    return S::div(x, S::add(S::set1(1.0f), exp_of_negative<S>(x)));
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
