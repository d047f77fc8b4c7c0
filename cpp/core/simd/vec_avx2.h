// SPDX-License-Identifier: Apache-2.0
// 8 lanes, AVX2 and FMA. See vec_scalar.h for what each name means.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define SEMISPARSE_INLINE inline __attribute__((always_inline))

namespace semisparse::avx2 {

struct Vec {
  using Elem = float;
  using Float = Vec;
  static constexpr int lanes = 8;
  static constexpr int max_vectors = 3;  // 4 x 3 sums + 3 panel vectors + 1 weight = all 16 registers
  static constexpr int rows_per_step = 4;
  static constexpr bool equal_runs = false;
  static constexpr bool in_program_order = false;
  static constexpr bool masked_loads = true;
  static constexpr bool streams = false;  // a vector is half a cache line
  using Reg = __m256;
  using Index = __m256i;
  using Mask = __m256;

  static SEMISPARSE_INLINE Reg load(const float* p) { return _mm256_load_ps(p); }
  static SEMISPARSE_INLINE Reg loadu(const float* p) { return _mm256_loadu_ps(p); }
  static SEMISPARSE_INLINE void store(float* p, Reg r) { _mm256_store_ps(p, r); }
  static SEMISPARSE_INLINE void storeu(float* p, Reg r) { _mm256_storeu_ps(p, r); }
  static SEMISPARSE_INLINE __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static SEMISPARSE_INLINE Reg load_n(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  static SEMISPARSE_INLINE void store_n(float* p, int n, Reg r) { _mm256_maskstore_ps(p, first(n), r); }
  static SEMISPARSE_INLINE Reg load_masked(const float* p, Mask m) {
    return _mm256_maskload_ps(p, _mm256_castps_si256(m));
  }
  static SEMISPARSE_INLINE Reg widen(Reg a) { return a; }
  static SEMISPARSE_INLINE Reg narrow(Reg a) { return a; }
  static SEMISPARSE_INLINE Reg set1(float x) { return _mm256_set1_ps(x); }
  static SEMISPARSE_INLINE Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static SEMISPARSE_INLINE Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static SEMISPARSE_INLINE Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static SEMISPARSE_INLINE Reg div(Reg a, Reg b) { return _mm256_div_ps(a, b); }
  static SEMISPARSE_INLINE Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static SEMISPARSE_INLINE Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  static SEMISPARSE_INLINE Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static SEMISPARSE_INLINE Reg maximum(Reg a, Reg b) {
    return _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  }
  static SEMISPARSE_INLINE Reg floor(Reg a) { return _mm256_floor_ps(a); }
  static constexpr bool scales = false;
  static SEMISPARSE_INLINE Reg pow2(Reg n) {
    const __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
  }

  static SEMISPARSE_INLINE Index index(const int32_t* p, int32_t add) {
    return _mm256_add_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_set1_epi32(add));
  }
  static constexpr int byte_scale = 1;
  static SEMISPARSE_INLINE Index index_bytes(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  // vpermps looks at the low three bits of each index; bit 3 (moved to the sign) says which of the two it
  // was.
  static SEMISPARSE_INLINE Reg permute2(Reg a, Reg b, Index i) {
    const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(i, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, i), _mm256_permutevar8x32_ps(b, i), upper);
  }
  static SEMISPARSE_INLINE Reg even(Reg a, Reg b) {
    const __m256 pairs = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0));  // a0 a2 b0 b2, a4 a6 b4 b6
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pairs), _MM_SHUFFLE(3, 1, 2, 0)));
  }
  static SEMISPARSE_INLINE Reg odd(Reg a, Reg b) {
    const __m256 pairs = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1));  // a1 a3 b1 b3, a5 a7 b5 b7
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pairs), _MM_SHUFFLE(3, 1, 2, 0)));
  }
  static SEMISPARSE_INLINE Reg zip_low(Reg a, Reg b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
  }
  static SEMISPARSE_INLINE Reg zip_high(Reg a, Reg b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
  }
  static SEMISPARSE_INLINE Reg slide(Reg a, Reg b) {
    return _mm256_permutevar8x32_ps(_mm256_blend_ps(a, b, 1), _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 0));
  }
  static constexpr bool interleaves = false;
  static SEMISPARSE_INLINE Reg permute(Reg a, Index i) { return _mm256_permutevar8x32_ps(a, i); }

  static SEMISPARSE_INLINE Mask mask(uint32_t bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), bit), bit));
  }
  static SEMISPARSE_INLINE Reg select(Mask m, Reg yes, Reg no) { return _mm256_blendv_ps(no, yes, m); }

  static SEMISPARSE_INLINE const char* row_start(const char* panel, uint16_t number, size_t row_bytes) {
    return panel + number * row_bytes;
  }

  struct Weights {
    const float* p;
  };
  static SEMISPARSE_INLINE Weights weights(const float* p) { return {p}; }
  template <int I>
  static SEMISPARSE_INLINE Reg fma_weight(Reg acc, Reg b, Weights w) {
    return _mm256_fmadd_ps(_mm256_broadcast_ss(w.p + I), b, acc);
  }
};

}  // namespace semisparse::avx2
