// SPDX-License-Identifier: Apache-2.0
// For the benchmarks: what one core can do at most, measured.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/row_run/row_run.h"

namespace semisparse::testing {

inline double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

namespace fma_peak {

constexpr int kChains = 12;  // more than latency times throughput anywhere; fewer than any set of registers
constexpr int kRepeats = 20000;

// Independent chains of one instruction on registers. The empty assembly hides what goes in and takes what
// comes out: nothing is computed at compile time, left out, or computed once for all chains.
#define SEMISPARSE_FMA_CHAINS(Vector, FMA)                                               \
  Vector sums[kChains] = {}, factor = {}, term = {};                                     \
  __asm__ volatile("" : "+" SEMISPARSE_REGISTER(factor), "+" SEMISPARSE_REGISTER(term)); \
  for (Vector& sum : sums) __asm__ volatile("" : "+" SEMISPARSE_REGISTER(sum));          \
  for (int i = 0; i < kRepeats; ++i)                                                     \
    for (Vector& sum : sums) sum = FMA;                                                  \
  for (Vector& sum : sums) __asm__ volatile("" : "+" SEMISPARSE_REGISTER(sum));          \
  return 2.0 * kChains * kRepeats * sizeof(Vector) / sizeof(float)

#if defined(__x86_64__)
#define SEMISPARSE_REGISTER(value) "v"(value)
__attribute__((target("avx512f"))) inline double avx512() {
  SEMISPARSE_FMA_CHAINS(__m512, _mm512_fmadd_ps(sum, factor, term));
}
#undef SEMISPARSE_REGISTER
#define SEMISPARSE_REGISTER(value) "x"(value)
__attribute__((target("avx2,fma"))) inline double avx2() {
  SEMISPARSE_FMA_CHAINS(__m256, _mm256_fmadd_ps(sum, factor, term));
}
#elif defined(__aarch64__)
#define SEMISPARSE_REGISTER(value) "w"(value)
inline double neon() {
  SEMISPARSE_FMA_CHAINS(float32x4_t, vfmaq_f32(term, sum, factor));
}
#endif
#undef SEMISPARSE_REGISTER
#undef SEMISPARSE_FMA_CHAINS

}  // namespace fma_peak

// Floating-point operations a second of one core with the widest vectors of the selected kernels: fused
// multiplications and additions on registers alone, the best of 50 measurements. 0 for scalar kernels.
inline double fma_peak_flops() {
  const char* const isa = selected_kernels().isa;
  double (*run)() = nullptr;
#if defined(__x86_64__)
  if (std::strcmp(isa, "avx512") == 0) run = fma_peak::avx512;
  if (std::strcmp(isa, "avx2") == 0) run = fma_peak::avx2;
#elif defined(__aarch64__)
  if (std::strcmp(isa, "neon") == 0) run = fma_peak::neon;
#endif
  double best = 0;
  for (int i = 0; run != nullptr && i < 50; ++i) {
    const double start = seconds(), operations = run();
    best = std::max(best, operations / (seconds() - start));
  }
  return best;
}

}  // namespace semisparse::testing
