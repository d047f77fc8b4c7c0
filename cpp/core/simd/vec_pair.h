// SPDX-License-Identifier: Apache-2.0
// Two vectors side by side as one of twice the lanes: the floats that a vector of halves widens to. What
// storing results needs; see vec_scalar.h for what each name means.
#pragma once

#include <cstdint>

namespace semisparse {

template <class V>
struct VecPair {
  static constexpr int lanes = 2 * V::lanes;
  struct Reg {
    typename V::Reg low, high;
  };
  struct Index {
    typename V::Index low, high;
  };
  struct Mask {
    typename V::Mask low, high;
  };

  static SEMISPARSE_INLINE Reg loadu(const float* p) { return {V::loadu(p), V::loadu(p + V::lanes)}; }
  static SEMISPARSE_INLINE void storeu(float* p, Reg r) {
    V::storeu(p, r.low);
    V::storeu(p + V::lanes, r.high);
  }
  static SEMISPARSE_INLINE Reg set1(float x) { return {V::set1(x), V::set1(x)}; }
  static SEMISPARSE_INLINE Reg add(Reg a, Reg b) { return {V::add(a.low, b.low), V::add(a.high, b.high)}; }
  static SEMISPARSE_INLINE Reg sub(Reg a, Reg b) { return {V::sub(a.low, b.low), V::sub(a.high, b.high)}; }
  static SEMISPARSE_INLINE Reg mul(Reg a, Reg b) { return {V::mul(a.low, b.low), V::mul(a.high, b.high)}; }
  static SEMISPARSE_INLINE Reg div(Reg a, Reg b) { return {V::div(a.low, b.low), V::div(a.high, b.high)}; }
  static SEMISPARSE_INLINE Reg fma(Reg a, Reg b, Reg c) {
    return {V::fma(a.low, b.low, c.low), V::fma(a.high, b.high, c.high)};
  }
  static SEMISPARSE_INLINE Reg min(Reg a, Reg b) { return {V::min(a.low, b.low), V::min(a.high, b.high)}; }
  static SEMISPARSE_INLINE Reg max(Reg a, Reg b) { return {V::max(a.low, b.low), V::max(a.high, b.high)}; }
  static SEMISPARSE_INLINE Reg floor(Reg a) { return {V::floor(a.low), V::floor(a.high)}; }
  static constexpr bool scales = false;
  static SEMISPARSE_INLINE Reg pow2(Reg n) { return {V::pow2(n.low), V::pow2(n.high)}; }

  static SEMISPARSE_INLINE Index index(const int32_t* p, int32_t add) {
    return {V::index(p, add), V::index(p + V::lanes, add)};
  }
  static SEMISPARSE_INLINE Reg permute(Reg a, Index i) {
    return {V::permute2(a.low, a.high, i.low), V::permute2(a.low, a.high, i.high)};
  }
  static SEMISPARSE_INLINE Mask mask(uint32_t bits) { return {V::mask(bits), V::mask(bits >> V::lanes)}; }
  static SEMISPARSE_INLINE Reg select(Mask m, Reg yes, Reg no) {
    return {V::select(m.low, yes.low, no.low), V::select(m.high, yes.high, no.high)};
  }
};

}  // namespace semisparse
