// SPDX-License-Identifier: Apache-2.0
// 16 lanes, AVX-512 F/VL/BW/DQ. See vec_scalar.h for what each name means.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define SEMISPARSE_INLINE inline __attribute__((always_inline))

namespace semisparse::avx512 {

struct Vec {
  using Elem = float;
  using Float = Vec;
  static constexpr int lanes = 16;
  static constexpr int max_vectors = 6;  // 4 x 6 sums + 6 panel vectors + 1 weight = 31 of 32 registers
  static constexpr int rows_per_step = 4;
  static constexpr bool equal_runs = true;
  static constexpr bool in_program_order = false;
  static constexpr bool masked_loads = true;
  static constexpr bool streams = true;
  using Reg = __m512;
  using Index = __m512i;
  using Mask = __mmask16;

  static SEMISPARSE_INLINE Reg load(const float* p) { return _mm512_load_ps(p); }
  static SEMISPARSE_INLINE Reg loadu(const float* p) { return _mm512_loadu_ps(p); }
  static SEMISPARSE_INLINE void store(float* p, Reg r) { _mm512_store_ps(p, r); }
  static SEMISPARSE_INLINE void storeu(float* p, Reg r) { _mm512_storeu_ps(p, r); }
  static SEMISPARSE_INLINE void stream(float* p, Reg r) { _mm512_stream_ps(p, r); }
  static SEMISPARSE_INLINE Reg load_n(const float* p, int n) {
    return _mm512_maskz_loadu_ps(static_cast<Mask>((1u << n) - 1), p);
  }
  static SEMISPARSE_INLINE void store_n(float* p, int n, Reg r) {
    _mm512_mask_storeu_ps(p, static_cast<Mask>((1u << n) - 1), r);
  }
  static SEMISPARSE_INLINE Reg load_masked(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  static SEMISPARSE_INLINE Reg widen(Reg a) { return a; }
  static SEMISPARSE_INLINE Reg narrow(Reg a) { return a; }
  static SEMISPARSE_INLINE Reg set1(float x) { return _mm512_set1_ps(x); }
  static SEMISPARSE_INLINE Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static SEMISPARSE_INLINE Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static SEMISPARSE_INLINE Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static SEMISPARSE_INLINE Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static SEMISPARSE_INLINE Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static SEMISPARSE_INLINE Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static SEMISPARSE_INLINE Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  // max gives b where either is NaN, and is not asked where a is.
  static SEMISPARSE_INLINE Reg maximum(Reg a, Reg b) {
    return _mm512_mask_max_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a, b);
  }
  static constexpr bool scales = true;
  static SEMISPARSE_INLINE Reg fraction(Reg t) { return _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF); }
  static SEMISPARSE_INLINE Reg scale(Reg a, Reg t) { return _mm512_scalef_ps(a, t); }

  static SEMISPARSE_INLINE Index index(const int32_t* p, int32_t add) {
    return _mm512_add_epi32(_mm512_loadu_si512(p), _mm512_set1_epi32(add));
  }
  static constexpr int byte_scale = 1;
  static SEMISPARSE_INLINE Index index_bytes(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static SEMISPARSE_INLINE Reg permute2(Reg a, Reg b, Index i) { return _mm512_permutex2var_ps(a, i, b); }
  static SEMISPARSE_INLINE Reg even(Reg a, Reg b) {
    return permute2(a, b, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
  }
  static SEMISPARSE_INLINE Reg odd(Reg a, Reg b) {
    return permute2(a, b, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31));
  }
  static SEMISPARSE_INLINE Reg zip_low(Reg a, Reg b) {
    return permute2(a, b, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  }
  static SEMISPARSE_INLINE Reg zip_high(Reg a, Reg b) {
    return permute2(a, b, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
  }
  static SEMISPARSE_INLINE Reg slide(Reg a, Reg b) {
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(b), _mm512_castps_si512(a), 1));
  }
  static constexpr bool interleaves = false;
  static SEMISPARSE_INLINE Reg permute(Reg a, Index i) { return _mm512_permutexvar_ps(i, a); }

  static SEMISPARSE_INLINE Mask mask(uint32_t bits) { return static_cast<Mask>(bits); }
  static SEMISPARSE_INLINE Reg select(Mask m, Reg yes, Reg no) { return _mm512_mask_blend_ps(m, no, yes); }

  static SEMISPARSE_INLINE const char* row_start(const char* panel, uint16_t number, size_t row_bytes) {
    return panel + number * row_bytes;
  }

  struct Weights {
    const float* p;
  };
  static SEMISPARSE_INLINE Weights weights(const float* p) { return {p}; }
  template <int I>
  static SEMISPARSE_INLINE Reg fma_weight(Reg acc, Reg b, Weights w) {
    return _mm512_fmadd_ps(_mm512_set1_ps(w.p[I]), b, acc);
  }
};

}  // namespace semisparse::avx512
