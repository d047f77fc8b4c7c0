// SPDX-License-Identifier: Apache-2.0
// CRC-64 (ECMA-182 polynomial, reflected, as in the .xz format), to detect any changed byte of a stored
// tensor.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace semisparse {

class Crc64 {
 public:
  void add(const uint8_t* bytes, size_t size) {
    const auto& t = tables();
    // Eight bytes at a time ("slicing by 8"): one table look-up per byte, but no chain through the shifts.
    for (; size >= 8; size -= 8, bytes += 8) {
      uint64_t word = state_;
      for (int i = 0; i < 8; ++i) word ^= static_cast<uint64_t>(bytes[i]) << (8 * i);
      state_ = 0;
      for (int i = 0; i < 8; ++i) state_ ^= t[7 - i][word >> (8 * i) & 0xff];
    }
    for (; size > 0; --size, ++bytes) state_ = t[0][(state_ ^ *bytes) & 0xff] ^ state_ >> 8;
  }
  uint64_t value() const { return ~state_; }

 private:
  using Tables = std::array<std::array<uint64_t, 256>, 8>;
  static const Tables& tables() {
    static const Tables tables = [] {
      Tables t{};
      for (uint64_t b = 0; b < 256; ++b) {
        uint64_t crc = b;
        for (int i = 0; i < 8; ++i) crc = crc & 1 ? crc >> 1 ^ 0xc96c5795d7870f42ull : crc >> 1;
        t[0][b] = crc;
      }
      for (size_t k = 1; k < 8; ++k)
        for (size_t b = 0; b < 256; ++b) t[k][b] = t[0][t[k - 1][b] & 0xff] ^ t[k - 1][b] >> 8;
      return t;
    }();
    return tables;
  }
  uint64_t state_ = ~uint64_t{0};
};

}  // namespace semisparse
