// SPDX-License-Identifier: Apache-2.0
// The portable "vector": four floats in plain C++, on any processor. The other vec_*.h offer the same names;
// this file is their description.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define SEMISPARSE_INLINE inline __attribute__((always_inline))

namespace semisparse::scalar {

struct Vec {
  using Elem = float;  // what a lane is in memory
  using Float = Vec;   // as many lanes of float: results are computed in it
  static constexpr int lanes = 4;
  static constexpr int max_vectors = 2;      // width of the register tile, in vectors
  static constexpr int rows_per_step = 1;    // how far the longest run is unrolled
  static constexpr bool equal_runs = false;  // whether im2col of panels narrower than max_vectors gains by
                                             // runs of equal length (run_lengths.h)
  static constexpr bool in_program_order = false;  // see ordered_runs.h
  static constexpr bool streams = false;           // stream: cache lines stored past the caches
  static constexpr bool masked_loads = false;  // load_masked: lanes that are not set are zero, and not read
  typedef float Reg __attribute__((vector_size(16)));
  typedef int32_t Index __attribute__((vector_size(16)));
  typedef int32_t Mask __attribute__((vector_size(16)));

  static SEMISPARSE_INLINE Reg load(const float* p) { return loadu(p); }
  static SEMISPARSE_INLINE Reg loadu(const float* p) {
    Reg r;
    std::memcpy(&r, p, sizeof r);
    return r;
  }
  static SEMISPARSE_INLINE void store(float* p, Reg r) { storeu(p, r); }
  static SEMISPARSE_INLINE void storeu(float* p, Reg r) { std::memcpy(p, &r, sizeof r); }
  // The first n lanes, 0 <= n <= lanes.
  static SEMISPARSE_INLINE Reg load_n(const float* p, int n) {
    Reg r = {0, 0, 0, 0};
    std::memcpy(&r, p, sizeof(float) * static_cast<size_t>(n));
    return r;
  }
  static SEMISPARSE_INLINE void store_n(float* p, int n, Reg r) {
    std::memcpy(p, &r, sizeof(float) * static_cast<size_t>(n));
  }
  // Reg to Float::Reg, and back.
  static SEMISPARSE_INLINE Reg widen(Reg a) { return a; }
  static SEMISPARSE_INLINE Reg narrow(Reg a) { return a; }
  static SEMISPARSE_INLINE Reg set1(float x) { return Reg{x, x, x, x}; }
  static SEMISPARSE_INLINE Reg add(Reg a, Reg b) { return a + b; }
  static SEMISPARSE_INLINE Reg sub(Reg a, Reg b) { return a - b; }
  static SEMISPARSE_INLINE Reg mul(Reg a, Reg b) { return a * b; }
  static SEMISPARSE_INLINE Reg div(Reg a, Reg b) { return a / b; }
  static SEMISPARSE_INLINE Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
  // min/max return the second operand when one is NaN (as x86 does), so max(bound, x) passes NaN on.
  static SEMISPARSE_INLINE Reg min(Reg a, Reg b) { return a < b ? a : b; }
  static SEMISPARSE_INLINE Reg max(Reg a, Reg b) { return a > b ? a : b; }
  // NaN where either operand is NaN.
  static SEMISPARSE_INLINE Reg maximum(Reg a, Reg b) { return (a > b) | (a != a) ? a : b; }
  static SEMISPARSE_INLINE Reg floor(Reg a) {
    Reg r;
    for (int i = 0; i < lanes; ++i) r[i] = std::floor(a[i]);
    return r;
  }
  // Whether there are fraction(t) = t - floor(t), 0 for infinities, and scale(a, t) = a * 2^floor(t) for any
  // t.
  static constexpr bool scales = false;
  // 2^n for integral n in [-126, 127].
  static SEMISPARSE_INLINE Reg pow2(Reg n) {
    Index bits = (__builtin_convertvector(n, Index) + 127) << 23;
    Reg r;
    std::memcpy(&r, &bits, sizeof r);
    return r;
  }

  // Lane numbers from memory, `add` added to each.
  static SEMISPARSE_INLINE Index index(const int32_t* p, int32_t add) {
    Index i;
    std::memcpy(&i, p, sizeof i);
    return i + add;
  }
  // Lane numbers from bytes that hold them times byte_scale.
  static constexpr int byte_scale = 1;
  static SEMISPARSE_INLINE Index index_bytes(const uint8_t* p) { return Index{p[0], p[1], p[2], p[3]}; }
  // r[l] = (a ++ b)[i[l]] for 0 <= i[l] < 2 * lanes.
  static SEMISPARSE_INLINE Reg permute2(Reg a, Reg b, Index i) { return __builtin_shuffle(a, b, i); }
  // Lanes 0, 2, 4, ... of a ++ b.
  static SEMISPARSE_INLINE Reg even(Reg a, Reg b) { return __builtin_shuffle(a, b, Index{0, 2, 4, 6}); }
  // Lanes 1, 3, 5, ... of a ++ b.
  static SEMISPARSE_INLINE Reg odd(Reg a, Reg b) { return __builtin_shuffle(a, b, Index{1, 3, 5, 7}); }
  // Lanes of a and b in turn: the first lanes / 2 of each, and the others.
  static SEMISPARSE_INLINE Reg zip_low(Reg a, Reg b) { return __builtin_shuffle(a, b, Index{0, 4, 1, 5}); }
  static SEMISPARSE_INLINE Reg zip_high(Reg a, Reg b) { return __builtin_shuffle(a, b, Index{2, 6, 3, 7}); }
  // Lanes 1, 2, ... of a, then lane 0 of b.
  static SEMISPARSE_INLINE Reg slide(Reg a, Reg b) { return __builtin_shuffle(a, b, Index{1, 2, 3, 4}); }
  // Whether there are load_split(p, r), which loads every n-th number into each of n registers, and its
  // inverse store_join(p, r).
  static constexpr bool interleaves = false;
  // r[l] = a[i[l]] for 0 <= i[l] < lanes.
  static SEMISPARSE_INLINE Reg permute(Reg a, Index i) { return __builtin_shuffle(a, i); }

  // Lane l is true where bit l is set.
  static SEMISPARSE_INLINE Mask mask(uint32_t bits) {
    const Index b = {1, 2, 4, 8};
    return (b & static_cast<int32_t>(bits)) != 0;
  }
  static SEMISPARSE_INLINE Reg select(Mask m, Reg yes, Reg no) { return m ? yes : no; }

  // Where a row of a panel begins.
  static SEMISPARSE_INLINE const char* row_start(const char* panel, uint16_t number, size_t row_bytes) {
    return panel + number * row_bytes;
  }

  // Up to four weights of one panel row; fma_weight<i> adds weight i times b. May read 4 floats whatever is
  // used.
  struct Weights {
    const float* p;
  };
  static SEMISPARSE_INLINE Weights weights(const float* p) { return {p}; }
  template <int I>
  static SEMISPARSE_INLINE Reg fma_weight(Reg acc, Reg b, Weights w) {
    return b * w.p[I] + acc;
  }
};

}  // namespace semisparse::scalar
