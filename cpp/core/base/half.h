// SPDX-License-Identifier: Apache-2.0
// Half precision (IEEE 754 binary16) as a storage type on every machine. Arithmetic is done in float32, or by
// kernels for processors that have it.
#pragma once

#include <cstdint>
#include <cstring>

namespace semisparse {

struct Half {
  uint16_t bits;
};

#if defined(__aarch64__)

// Conversions are part of ARMv8.0.
inline float to_float(Half h) {
  __fp16 x;
  std::memcpy(&x, &h, sizeof x);
  return x;
}
inline Half to_half(float f) {
  const __fp16 x = static_cast<__fp16>(f);
  Half h;
  std::memcpy(&h, &x, sizeof h);
  return h;
}

#else

// Without branches, so that the compiler makes vectors of a loop over them.
inline float to_float(Half h) {
  // Exponent and fraction in float32's places are too small by 2^112, subnormal numbers included.
  uint32_t bits = (h.bits & 0x7fffu) << 13;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  x *= 0x1p112f;
  std::memcpy(&bits, &x, sizeof bits);
  bits |= bits >= 0x47800000u ? 0x7f800000u : 0u;  // 2^16 and more was infinity or NaN
  bits |= (h.bits & 0x8000u) << 16;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// To the nearest, ties to even; 65520 and more becomes infinite.
inline Half to_half(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u;
  bits &= 0x7fffffffu;
  const uint32_t normal = (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1u)) >> 13;
  // Below 2^-14 the distance of neighbours is that of floats around 1/2: adding rounds as it should.
  float x;
  std::memcpy(&x, &bits, sizeof x);
  x += 0.5f;
  uint32_t sum;
  std::memcpy(&sum, &x, sizeof sum);
  uint32_t half = bits < 0x38800000u ? sum - 0x3f000000u : normal;
  half = bits >= 0x477ff000u ? 0x7c00u : half;
  half = bits > 0x7f800000u ? 0x7e00u | (bits >> 13 & 0x3ffu) : half;
  return {static_cast<uint16_t>(sign | half)};
}

#endif

}  // namespace semisparse
