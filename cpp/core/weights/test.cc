// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <string>

#include "core/base/checksum.h"
#include "core/base/error.h"
#include "core/testing/random.h"
#include "core/weights/decode.h"
#include "core/weights/format.h"
#include "core/weights/packed.h"
#include "core/weights/prepare.h"

using namespace semisparse;
using semisparse::testing::Random;

namespace {

WeightShape draw_shape(Random& r) {
  WeightShape s;
  s.groups = r.one_of<int64_t>({1, 1, 2, 5});
  s.out_channels = s.groups * r.between(1, 9);
  s.in_channels_per_group = r.between(1, 12);
  s.kernel_h = r.one_of<int64_t>({1, 3, 3, 5, 7});
  s.kernel_w = r.chance(0.8) ? s.kernel_h : r.between(1, 5);
  return s;
}

void reseal(std::vector<uint8_t>* bytes) {
  Crc64 crc;
  crc.add(bytes->data(), offsetof(PackedHeader, checksum));
  crc.add(bytes->data() + sizeof(PackedHeader), bytes->size() - sizeof(PackedHeader));
  const uint64_t value = crc.value();
  std::memcpy(bytes->data() + offsetof(PackedHeader, checksum), &value, 8);
}

}  // namespace

TEST_CASE("unpack is the exact inverse of pack, bit for bit") {
  Random r(3);
  for (int i = 0; i < 300; ++i) {
    const WeightShape s = draw_shape(r);
    auto w = r.weight(s);
    if (r.chance(0.3)) w[0] = -0.0f;
    if (r.chance(0.3)) w[w.size() - 1] = NAN;
    const auto packed = pack_weight(w.data(), s);
    std::vector<float> back(w.size(), 42.0f);
    unpack_weight(packed.data(), packed.size(), back.data());
    CHECK(std::memcmp(w.data(), back.data(), 4 * w.size()) == 0);
    CHECK(packed.size() <= sizeof(PackedHeader) + 4 * w.size());
    CHECK(pack_weight(back.data(), s) == packed);
  }
}

TEST_CASE("the bytes are the same on every machine") {
  const float w[9] = {0, 1, 0, 0, 2, 0, 0, 0, 3};
  const auto packed = pack_weight(w, {1, 1, 3, 3, 1});
  // Stored dense or by patterns, whichever is smaller: 2 indices, 1 run (2), 1 channel, 2 pattern bytes, 3
  // weights.
  REQUIRE(packed.size() == 64 + 12 + 12);
  Crc64 crc;
  crc.add(packed.data(), packed.size());
  CHECK(crc.value() == 0x5e6f855244f4eab3ull);
  Crc64 standard;  // the CRC-64/XZ check value
  standard.add(reinterpret_cast<const uint8_t*>("123456789"), 9);
  CHECK(standard.value() == 0x995dc9bbdf1939faull);
}

TEST_CASE("8 patterns with and without connectivity: at most 0.7 of int32 CSR") {
  Random r(5);
  for (const double kept : {1.0, 1 / 3.6}) {
    const WeightShape s{128, 64, 3, 3, 1};
    auto w = r.normals(s.elements());
    int library[8];
    for (int& p : library) {
      p = 1 << 4;
      while (__builtin_popcount(static_cast<unsigned>(p)) < 4) p |= 1 << r.between(0, 8);
    }
    size_t nonzeros = 0;
    for (size_t k = 0; k < w.size() / 9; ++k) {
      const int p = r.chance(kept) ? library[r.between(0, 7)] : 0;
      for (int t = 0; t < 9; ++t)
        if (p >> t & 1)
          ++nonzeros;
        else
          w[k * 9 + static_cast<size_t>(t)] = 0;
    }
    const size_t csr = 8 * nonzeros + 4 * 129;
    const auto packed = pack_weight(w.data(), s);
    MESSAGE("packed / CSR = ", static_cast<double>(packed.size()) / static_cast<double>(csr));
    CHECK(static_cast<double>(packed.size()) <= 0.7 * static_cast<double>(csr));
  }
}

TEST_CASE("any changed, missing or added byte is noticed") {
  Random r(9);
  for (int i = 0; i < 4000; ++i) {
    const WeightShape s = draw_shape(r);
    auto w = r.weight(s);
    auto packed = pack_weight(w.data(), s);
    std::vector<float> out(w.size());
    if (r.chance(0.6)) {
      packed[static_cast<size_t>(r.between(0, static_cast<int64_t>(packed.size()) - 1))] ^=
          static_cast<uint8_t>(r.between(1, 255));
    } else if (r.chance(0.7)) {
      packed.resize(static_cast<size_t>(r.between(0, static_cast<int64_t>(packed.size()) - 1)));
    } else {
      packed.resize(packed.size() + static_cast<size_t>(r.between(1, 9)), 0);
    }
    packed.shrink_to_fit();  // so that AddressSanitizer sees reads past the end
    CHECK_THROWS_AS(unpack_weight(packed.data(), packed.size(), out.data()), Error);
    CHECK_THROWS_AS(prepare_packed(packed.data(), packed.size(), 4), Error);
  }
}

TEST_CASE("forged checksums do not help: indices are checked before use") {
  Random r(13);
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    const WeightShape s = draw_shape(r);
    auto w = r.weight(s);
    auto packed = pack_weight(w.data(), s);
    for (int k = 0; k < 3; ++k)
      packed[static_cast<size_t>(r.between(8, static_cast<int64_t>(packed.size()) - 1))] =
          static_cast<uint8_t>(r.between(0, 255));
    reseal(&packed);
    try {
      const auto found = inspect_packed(packed.data(), packed.size()).shape;
      if (found.elements() > 1000000) continue;  // a shape that large is possible, only slow to look at
      std::vector<float> out(static_cast<size_t>(found.elements()));
      unpack_weight(packed.data(), packed.size(), out.data());
      prepare_packed(packed.data(), packed.size(), 3);
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused > 1000);
}

TEST_CASE("a newer version is named") {
  const float w = 1;
  auto packed = pack_weight(&w, {1, 1, 1, 1, 1});
  packed[4] = 9;
  reseal(&packed);
  try {
    inspect_packed(packed.data(), packed.size());
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("version 9") != std::string::npos);
    CHECK(std::string(e.what()).find("update semisparse") != std::string::npos);
  }
}
