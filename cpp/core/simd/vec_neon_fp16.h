// SPDX-License-Identifier: Apache-2.0
// 8 lanes of half precision, ARMv8.2 with FEAT_FP16 (Cortex-A55, A75, A76 and newer). What the row-run
// kernels need; see vec_scalar.h for what each name means.
#pragma once

#include "core/base/half.h"
#include "core/simd/vec_neon.h"
#include "core/simd/vec_pair.h"

namespace semisparse::neon_fp16 {

struct Vec {
  using Elem = Half;
  using Float = VecPair<neon::Vec>;
  static constexpr int lanes = 8;
  static constexpr int max_vectors = 6;  // as for float32
  static constexpr int rows_per_step = 1;
  static constexpr bool equal_runs = false;
  static constexpr bool in_program_order = false;
  static constexpr bool streams = false;
  using Reg = float16x8_t;
  using Index = uint8x16_t;  // byte numbers, two for each lane
  using Mask = uint16x8_t;

  static SEMISPARSE_INLINE Reg load(const Half* p) { return loadu(p); }
  static SEMISPARSE_INLINE Reg loadu(const Half* p) { return vreinterpretq_f16_u16(vld1q_u16(&p->bits)); }
  static SEMISPARSE_INLINE void store(Half* p, Reg r) { storeu(p, r); }
  static SEMISPARSE_INLINE void storeu(Half* p, Reg r) { vst1q_u16(&p->bits, vreinterpretq_u16_f16(r)); }
  static SEMISPARSE_INLINE Reg load_n(const Half* p, int n) {
    Half t[lanes] = {};
    std::memcpy(t, p, sizeof(Half) * static_cast<size_t>(n));
    return loadu(t);
  }
  static SEMISPARSE_INLINE void store_n(Half* p, int n, Reg r) {
    Half t[lanes];
    storeu(t, r);
    std::memcpy(p, t, sizeof(Half) * static_cast<size_t>(n));
  }
  static SEMISPARSE_INLINE Float::Reg widen(Reg a) {
    return {vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a)};
  }
  static SEMISPARSE_INLINE Reg narrow(Float::Reg a) { return vcvt_high_f16_f32(vcvt_f16_f32(a.low), a.high); }
  static SEMISPARSE_INLINE Reg set1(float x) { return vdupq_n_f16(static_cast<float16_t>(x)); }
  static SEMISPARSE_INLINE Reg add(Reg a, Reg b) { return vaddq_f16(a, b); }

  static SEMISPARSE_INLINE Index index(const int32_t* p, int32_t add) {
    const uint32x4_t low = vreinterpretq_u32_s32(vaddq_s32(vld1q_s32(p), vdupq_n_s32(add)));
    const uint32x4_t high = vreinterpretq_u32_s32(vaddq_s32(vld1q_s32(p + 4), vdupq_n_s32(add)));
    const uint16x8_t lane = vmovn_high_u32(vmovn_u32(low), high);
    return vreinterpretq_u8_u16(vmlaq_u16(vdupq_n_u16(0x0100), lane, vdupq_n_u16(0x0202)));
  }
  static SEMISPARSE_INLINE Reg permute2(Reg a, Reg b, Index i) {
    return vreinterpretq_f16_u8(vqtbl2q_u8({{vreinterpretq_u8_f16(a), vreinterpretq_u8_f16(b)}}, i));
  }
  static SEMISPARSE_INLINE Reg even(Reg a, Reg b) { return vuzp1q_f16(a, b); }
  static SEMISPARSE_INLINE Reg odd(Reg a, Reg b) { return vuzp2q_f16(a, b); }

  static SEMISPARSE_INLINE Mask mask(uint32_t bits) {
    const uint16_t bit[lanes] = {1, 2, 4, 8, 16, 32, 64, 128};
    return vtstq_u16(vdupq_n_u16(static_cast<uint16_t>(bits)), vld1q_u16(bit));
  }
  static SEMISPARSE_INLINE Reg select(Mask m, Reg yes, Reg no) { return vbslq_f16(m, yes, no); }

  static SEMISPARSE_INLINE const char* row_start(const char* panel, uint16_t number, uint32_t row_bytes) {
    return neon::Vec::row_start(panel, number, row_bytes);
  }
  using Weights = float16x4_t;
  static SEMISPARSE_INLINE Weights weights(const float* p) { return vcvt_f16_f32(vld1q_f32(p)); }
  template <int I>
  static SEMISPARSE_INLINE Reg fma_weight(Reg acc, Reg b, Weights w) {
    // GCC makes vectors of a lane of vfmaq_lane_f16 first, one for each filter. "x": registers 0 to 15.
    asm("fmla %0.8h, %1.8h, %2.h[%3]" : "+w"(acc) : "w"(b), "x"(w), "n"(I));
    return acc;
  }
};

}  // namespace semisparse::neon_fp16
