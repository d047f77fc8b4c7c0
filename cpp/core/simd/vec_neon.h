// SPDX-License-Identifier: Apache-2.0
// 4 lanes, ARMv8.0 Advanced SIMD (every 64-bit ARM core). See vec_scalar.h for what each name means.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#define SEMISPARSE_INLINE inline __attribute__((always_inline))

namespace semisparse::neon {

struct Vec {
  using Elem = float;
  using Float = Vec;
  static constexpr int lanes = 4;
  static constexpr int max_vectors = 6;  // 4 x 6 sums + 6 panel vectors + 1 of weights = 31 of 32 registers
  static constexpr int rows_per_step = 1;
  static constexpr bool equal_runs = false;       // unmeasured: no emulator counts mispredicted branches
  static constexpr bool in_program_order = true;  // see ordered_runs.h
  static constexpr bool masked_loads = false;
  static constexpr bool streams = false;
  using Reg = float32x4_t;
  using Index = uint8x16_t;  // byte numbers, four for each lane: what TBL wants
  using Mask = uint32x4_t;

  static SEMISPARSE_INLINE Reg load(const float* p) { return vld1q_f32(p); }
  static SEMISPARSE_INLINE Reg loadu(const float* p) { return vld1q_f32(p); }
  static SEMISPARSE_INLINE void store(float* p, Reg r) { vst1q_f32(p, r); }
  static SEMISPARSE_INLINE void storeu(float* p, Reg r) { vst1q_f32(p, r); }
  static SEMISPARSE_INLINE Reg load_n(const float* p, int n) {
    if (n == 4) return loadu(p);
    Reg r = vdupq_n_f32(0.0f);
    if (n & 2) r = vcombine_f32(vld1_f32(p), vget_high_f32(r));
    if (n == 3) return vld1q_lane_f32(p + 2, r, 2);
    return n == 1 ? vld1q_lane_f32(p, r, 0) : r;
  }
  static SEMISPARSE_INLINE void store_n(float* p, int n, Reg r) {
    if (n == 4) return storeu(p, r);
    if (n & 2) vst1_f32(p, vget_low_f32(r));
    if (n == 3) vst1q_lane_f32(p + 2, r, 2);
    if (n == 1) vst1q_lane_f32(p, r, 0);
  }
  static SEMISPARSE_INLINE Reg widen(Reg a) { return a; }
  static SEMISPARSE_INLINE Reg narrow(Reg a) { return a; }
  static SEMISPARSE_INLINE Reg set1(float x) { return vdupq_n_f32(x); }
  static SEMISPARSE_INLINE Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
  static SEMISPARSE_INLINE Reg sub(Reg a, Reg b) { return vsubq_f32(a, b); }
  static SEMISPARSE_INLINE Reg mul(Reg a, Reg b) { return vmulq_f32(a, b); }
  static SEMISPARSE_INLINE Reg div(Reg a, Reg b) { return vdivq_f32(a, b); }
  static SEMISPARSE_INLINE Reg fma(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
  static SEMISPARSE_INLINE Reg min(Reg a, Reg b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static SEMISPARSE_INLINE Reg max(Reg a, Reg b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static SEMISPARSE_INLINE Reg maximum(Reg a, Reg b) { return vmaxq_f32(a, b); }
  static SEMISPARSE_INLINE Reg floor(Reg a) { return vrndmq_f32(a); }
  static constexpr bool scales = false;
  static SEMISPARSE_INLINE Reg pow2(Reg n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
  }

  static SEMISPARSE_INLINE Index index(const int32_t* p, int32_t add) {
    const uint32x4_t lane = vreinterpretq_u32_s32(vaddq_s32(vld1q_s32(p), vdupq_n_s32(add)));
    return vreinterpretq_u8_u32(vmlaq_u32(vdupq_n_u32(0x03020100u), lane, vdupq_n_u32(0x04040404u)));
  }
  static constexpr int byte_scale = 4;  // so that one addition makes byte numbers
  static SEMISPARSE_INLINE Index index_bytes(const uint8_t* p) {
    const uint8x16_t spread = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const uint8x16_t byte = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    uint32_t four;
    std::memcpy(&four, p, 4);
    return vaddq_u8(vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(four)), spread), byte);
  }
  static SEMISPARSE_INLINE Reg permute2(Reg a, Reg b, Index i) {
    return vreinterpretq_f32_u8(vqtbl2q_u8({{vreinterpretq_u8_f32(a), vreinterpretq_u8_f32(b)}}, i));
  }
  static SEMISPARSE_INLINE Reg even(Reg a, Reg b) { return vuzp1q_f32(a, b); }
  static SEMISPARSE_INLINE Reg odd(Reg a, Reg b) { return vuzp2q_f32(a, b); }
  static SEMISPARSE_INLINE Reg zip_low(Reg a, Reg b) { return vzip1q_f32(a, b); }
  static SEMISPARSE_INLINE Reg zip_high(Reg a, Reg b) { return vzip2q_f32(a, b); }
  static SEMISPARSE_INLINE Reg slide(Reg a, Reg b) { return vextq_f32(a, b, 1); }
  static constexpr bool interleaves = true;
  static SEMISPARSE_INLINE void load_split(const float* p, Reg (&r)[2]) {
    const float32x4x2_t t = vld2q_f32(p);
    r[0] = t.val[0];
    r[1] = t.val[1];
  }
  static SEMISPARSE_INLINE void load_split(const float* p, Reg (&r)[4]) {
    const float32x4x4_t t = vld4q_f32(p);
    for (int i = 0; i < 4; ++i) r[i] = t.val[i];
  }
  static SEMISPARSE_INLINE void store_join(float* p, const Reg (&r)[2]) { vst2q_f32(p, {{r[0], r[1]}}); }
  static SEMISPARSE_INLINE void store_join(float* p, const Reg (&r)[4]) {
    vst4q_f32(p, {{r[0], r[1], r[2], r[3]}});
  }
  static SEMISPARSE_INLINE Reg permute(Reg a, Index i) {
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(a), i));
  }

  static SEMISPARSE_INLINE Mask mask(uint32_t bits) {
    const uint32_t bit[4] = {1, 2, 4, 8};
    return vtstq_u32(vdupq_n_u32(bits), vld1q_u32(bit));
  }
  static SEMISPARSE_INLINE Reg select(Mask m, Reg yes, Reg no) { return vbslq_f32(m, yes, no); }

  // One instruction, and an address that loads count their (paired) offsets from.
  static SEMISPARSE_INLINE const char* row_start(const char* panel, uint16_t number, uint32_t row_bytes) {
    const char* row;
    asm("umaddl %0, %w1, %w2, %3" : "=r"(row) : "r"(uint32_t{number}), "r"(row_bytes), "r"(panel));
    return row;
  }

  // For ordered_runs.h: one instruction each, volatile, so that the compiler leaves them in their order.
  template <int Bytes>
  static SEMISPARSE_INLINE void load_pair(const char* p, Reg& a, Reg& b) {
    asm volatile("ldp %q0, %q1, [%2, %3]"
                 : "=w"(a), "=w"(b)
                 : "r"(p), "i"(Bytes), "m"(*reinterpret_cast<const float (*)[]>(p)));
  }
  template <int Bytes>
  static SEMISPARSE_INLINE void load_one(const char* p, Reg& a) {
    asm volatile("ldr %q0, %1" : "=w"(a) : "m"(*reinterpret_cast<const Reg*>(p + Bytes)));
  }
  static SEMISPARSE_INLINE void load_offset(const char* start, uint32_t offset, Reg& a) {
    asm volatile("ldr %q0, [%1, %w2, uxtw]"
                 : "=w"(a)
                 : "r"(start), "r"(offset), "m"(*reinterpret_cast<const Reg*>(start + offset)));
  }
  // The next `Count` weights, in as many registers as they need.
  template <int Count, int N>
  static SEMISPARSE_INLINE void load_weights(const float*& p, Reg (&w)[N]) {
    static_assert(N <= 2 && Count <= 4 * N && Count > 4 * N - 4);
    if constexpr (N == 1)
      asm volatile("ldr %q0, [%1], %2"
                   : "=w"(w[0]), "+r"(p)
                   : "i"(4 * Count), "m"(*reinterpret_cast<const Reg*>(p)));
    else if constexpr (Count == 8)
      asm volatile("ldp %q0, %q1, [%2], 32"
                   : "=w"(w[0]), "=w"(w[1]), "+r"(p)
                   : "m"(*reinterpret_cast<const Reg(*)[2]>(p)));
    else
      asm volatile("ldr %q0, [%2], 16\n\tldr %q1, [%2], %3"
                   : "=&w"(w[0]), "=w"(w[1]), "+r"(p)
                   : "i"(4 * Count - 16), "m"(*reinterpret_cast<const Reg(*)[2]>(p)));
  }
  template <int Lane>
  static SEMISPARSE_INLINE void fma_lane(Reg& acc, Reg b, Reg w) {
    asm volatile("fmla %0.4s, %1.4s, %2.s[%3]" : "+w"(acc) : "w"(b), "w"(w), "i"(Lane));
  }

  using Weights = float32x4_t;
  static SEMISPARSE_INLINE Weights weights(const float* p) { return vld1q_f32(p); }
  template <int I>
  static SEMISPARSE_INLINE Reg fma_weight(Reg acc, Reg b, Weights w) {
    return vfmaq_laneq_f32(acc, b, w, I);
  }
};

}  // namespace semisparse::neon
