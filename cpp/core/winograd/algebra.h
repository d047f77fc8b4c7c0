// SPDX-License-Identifier: Apache-2.0
// The one-dimensional transforms of F(M,R); two dimensions are columns, then rows. The points, those of
// weight.cc, are where the two polynomials are evaluated.
#pragma once

#include "core/row_run/micro_kernel.h"

namespace semisparse {

template <class S, int M, int R>
struct WinogradAlgebra;

// Points 0, 1, -1, infinity.
template <class S>
struct WinogradAlgebra<S, 2, 3> {
  using Reg = typename S::Reg;
  static SEMISPARSE_INLINE void input(const Reg (&d)[4], Reg (&t)[4]) {
    t[0] = S::sub(d[2], d[0]);
    t[1] = S::add(d[1], d[2]);
    t[2] = S::sub(d[2], d[1]);
    t[3] = S::sub(d[3], d[1]);
  }
  static SEMISPARSE_INLINE void output(const Reg (&m)[4], Reg (&y)[2]) {
    y[0] = S::add(S::add(m[0], m[1]), m[2]);
    y[1] = S::add(S::sub(m[1], m[2]), m[3]);
  }
};

// Points 0, a, -a, b, -b, infinity with a = sqrt(1/2), b = sqrt(2): a*b = 1 keeps the transforms' entries
// near one another, which leaves about half of the rounding error of the points 0, 1, -1, 2, -2.
template <class S>
struct WinogradAlgebra<S, 4, 3> {
  using Reg = typename S::Reg;
  static constexpr float a = 0.70710678118654752f, b = 1.41421356237309505f;
  static SEMISPARSE_INLINE void input(const Reg (&d)[6], Reg (&t)[6]) {
    const Reg ra = S::set1(a), rb = S::set1(b), na = S::set1(-a), nb = S::set1(-b);
    const Reg aa = S::set1(-0.5f), bb = S::set1(-2.0f), both = S::set1(-2.5f);  // -a^2, -b^2, -(a^2 + b^2)
    const Reg even_a = S::fma(bb, d[2], d[4]), odd_a = S::fma(bb, d[1], d[3]);
    const Reg even_b = S::fma(aa, d[2], d[4]), odd_b = S::fma(aa, d[1], d[3]);
    t[0] = S::fma(both, d[2], S::add(d[0], d[4]));
    t[1] = S::fma(ra, odd_a, even_a);
    t[2] = S::fma(na, odd_a, even_a);
    t[3] = S::fma(rb, odd_b, even_b);
    t[4] = S::fma(nb, odd_b, even_b);
    t[5] = S::fma(both, d[3], S::add(d[1], d[5]));
  }
  static SEMISPARSE_INLINE void output(const Reg (&m)[6], Reg (&y)[4]) {
    const Reg sum_a = S::add(m[1], m[2]), sum_b = S::add(m[3], m[4]);
    const Reg difference_a = S::mul(S::set1(a), S::sub(m[1], m[2]));
    const Reg difference_b = S::mul(S::set1(b), S::sub(m[3], m[4]));
    y[0] = S::add(m[0], S::add(sum_a, sum_b));
    y[1] = S::add(difference_a, difference_b);
    y[2] = S::fma(S::set1(0.5f), sum_a, S::add(sum_b, sum_b));
    y[3] = S::add(S::fma(S::set1(0.5f), difference_a, m[5]), S::add(difference_b, difference_b));
  }
};

// Points a, -a, b, -b, c, -c, infinity with a = 1/4, b = 3/4, c = 2, searched for among simple fractions:
// rounding errors about twice those of F(4,3).
template <class S>
struct WinogradAlgebra<S, 4, 4> {
  using Reg = typename S::Reg;
  static constexpr float a = 0.25f, b = 0.75f, c = 2.0f;
  // Coefficients of (x^2 - u^2) (x^2 - v^2), the product over the points other than the pair +-w.
  static SEMISPARSE_INLINE void pair(const Reg (&d)[7], float u, float v, float w, Reg* plus, Reg* minus) {
    const Reg square = S::set1(-(u * u + v * v)), constant = S::set1(u * u * v * v);
    const Reg even = S::fma(constant, d[0], S::fma(square, d[2], d[4]));
    const Reg odd = S::fma(constant, d[1], S::fma(square, d[3], d[5]));
    *plus = S::fma(S::set1(w), even, odd);
    *minus = S::fma(S::set1(-w), even, odd);
  }
  static SEMISPARSE_INLINE void input(const Reg (&d)[7], Reg (&t)[7]) {
    pair(d, b, c, a, &t[0], &t[1]);
    pair(d, a, c, b, &t[2], &t[3]);
    pair(d, a, b, c, &t[4], &t[5]);
    constexpr float aa = a * a, bb = b * b, cc = c * c;
    const Reg low = S::fma(S::set1(aa * bb + aa * cc + bb * cc), d[2], S::mul(S::set1(-aa * bb * cc), d[0]));
    t[6] = S::add(S::fma(S::set1(-(aa + bb + cc)), d[4], d[6]), low);
  }
  static SEMISPARSE_INLINE void output(const Reg (&m)[7], Reg (&y)[4]) {
    const Reg sum_a = S::add(m[0], m[1]), sum_b = S::add(m[2], m[3]), sum_c = S::add(m[4], m[5]);
    const Reg difference_a = S::sub(m[0], m[1]), difference_b = S::sub(m[2], m[3]);
    const Reg difference_c = S::sub(m[4], m[5]);
    y[0] = S::add(sum_a, S::add(sum_b, sum_c));
    y[1] =
        S::fma(S::set1(a), difference_a, S::fma(S::set1(b), difference_b, S::mul(S::set1(c), difference_c)));
    y[2] = S::fma(S::set1(a * a), sum_a, S::fma(S::set1(b * b), sum_b, S::mul(S::set1(c * c), sum_c)));
    y[3] = S::fma(S::set1(a * a * a), difference_a,
                  S::fma(S::set1(b * b * b), difference_b, S::fma(S::set1(c * c * c), difference_c, m[6])));
  }
};

}  // namespace semisparse
