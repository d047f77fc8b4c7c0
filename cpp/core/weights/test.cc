// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <tuple>

#include "core/base/checksum.h"
#include "core/base/error.h"
#include "core/testing/random.h"
#include "core/weights/decode.h"
#include "core/weights/filter_order.h"
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

TEST_CASE("rows of blocks are counted as they are prepared") {
  Random r(11);
  int counted = 0;
  for (int i = 0; i < 200; ++i) {
    const WeightShape s = draw_shape(r);
    const auto w = r.weight(s);
    const auto packed = pack_weight(w.data(), s);
    const PackedInfo info = inspect_weights(packed.data(), packed.size());
    CHECK(info.nonzeros == inspect_packed(packed.data(), packed.size()).nonzeros);
    if (info.dense) continue;
    ++counted;
    const auto prepared = prepare_packed(packed.data(), packed.size(), {1});
    int64_t rows = 0;
    for (const RunBlock& block : prepared->blocks) rows += static_cast<int64_t>(count_rows(block));
    CHECK(info.block_rows == rows);
  }
  CHECK(counted > 20);
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

namespace {

// 4 of 9 weights, one of 8 patterns, groups of `share` filters alike, then `shuffled`; kernels kept with
// probability `kept`.
std::vector<float> pattern_weight(Random& r, const WeightShape& s, int share, double kept, bool shuffled) {
  int library[8];
  for (int& p : library) {
    p = 1 << 4;
    while (__builtin_popcount(static_cast<unsigned>(p)) < 4) p |= 1 << r.between(0, 8);
  }
  const int64_t ic = s.in_channels_per_group;
  std::vector<int64_t> place(static_cast<size_t>(s.out_channels));
  std::iota(place.begin(), place.end(), 0);
  if (shuffled)
    for (size_t i = place.size(); i > 1; --i)
      std::swap(place[i - 1], place[static_cast<size_t>(r.between(0, static_cast<int64_t>(i) - 1))]);
  std::vector<float> w(static_cast<size_t>(s.elements()), 0.0f);
  std::vector<int> pattern(static_cast<size_t>(ic));
  for (int64_t f = 0; f < s.out_channels; ++f)
    for (int64_t c = 0; c < ic; ++c) {
      if (f % share == 0) pattern[static_cast<size_t>(c)] = r.chance(kept) ? library[r.between(0, 7)] : 0;
      for (int t = 0; t < 9; ++t)
        if (pattern[static_cast<size_t>(c)] >> t & 1)
          w[static_cast<size_t>((place[static_cast<size_t>(f)] * ic + c) * 9 + t)] =
              static_cast<float>(r.between(1, 99));
    }
  return w;
}

// Share of the rows of blocks of four that all four filters use.
double full_runs(const PreparedWeight& p) {
  double full = 0, all = 0;
  for (const RunBlock& block : p.blocks)
    for (int s = 1; s < 16; ++s) {
      all += block.counts[s];
      if (s == 15) full += block.counts[s];
    }
  return full / all;
}

}  // namespace

TEST_CASE("filters trained for groups of 4 or 8 come side by side, wherever they stand") {
  Random r(61);
  for (const int64_t groups : {1, 2})
    for (const int share : {4, 8})
      for (const double kept : {1.0, 1 / 3.6}) {
        const WeightShape s{64, 32, 3, 3, groups};
        const WeightShape half{32, 32, 3, 3, 1};
        std::vector<float> w;
        for (int64_t g = 0; g < groups; ++g) {  // filters never change their group
          const auto part = pattern_weight(r, groups == 1 ? s : half, share, kept, true);
          w.insert(w.end(), part.begin(), part.end());
        }
        const auto packed = pack_weight(w.data(), s);
        CAPTURE(share);
        CAPTURE(kept);
        CAPTURE(groups);
        CHECK(full_runs(*prepare_packed(packed.data(), packed.size(), {16})) == 1.0);
        std::vector<float> back(w.size());
        unpack_weight(packed.data(), packed.size(), back.data());
        CHECK(back == w);
        const auto order = choose_filter_order(w.data(), s);
        CHECK(std::set<uint32_t>(order.begin(), order.end()).size() == 64);
        for (size_t i = 0; i < order.size(); ++i)
          CHECK(order[i] / (64 / groups) == i / static_cast<size_t>(64 / groups));
      }
}

namespace {

using Product = std::tuple<size_t, uint16_t, float>;  // filter of a chunk, row, weight

// All that is multiplied, chunk by chunk; also checks that runs are in order.
std::vector<std::set<Product>> products(const PreparedWeight& p) {
  std::vector<std::set<Product>> all;
  for (const PreparedWeight::Group& group : p.groups)
    for (const PreparedWeight::Chunk& chunk : group.chunks) {
      std::set<Product>& found = all.emplace_back();
      for (size_t b = 0; b < static_cast<size_t>(group.blocks); ++b) {
        const RunBlock& runs = p.blocks[chunk.first_block + b];
        const uint16_t* row = runs.rows;
        const float* weight = runs.weights;
        for (int i = 0; i < 15; ++i) {
          const unsigned filters = run_order()[i];
          for (int k = 0; k < runs.counts[filters]; ++k, ++row) {
            CHECK((k == 0 || row[-1] < row[0]));
            for (size_t f = 0; f < kBlockFilters; ++f)
              if (filters >> f & 1) CHECK(found.emplace(b * kBlockFilters + f, *row, *weight++).second);
          }
        }
      }
    }
  return all;
}

// Runs of a chunk that are not as long as most of their kind.
size_t odd_runs(const PreparedWeight& p) {
  size_t odd = 0;
  const auto blocks = static_cast<size_t>(p.groups[0].blocks);
  for (const PreparedWeight::Chunk& chunk : p.groups[0].chunks)
    for (int s = 1; s < 16; ++s) {
      std::map<int, size_t> lengths;
      for (size_t b = 0; b < blocks; ++b) ++lengths[p.blocks[chunk.first_block + b].counts[s]];
      size_t most = 0;
      for (const auto& [length, count] : lengths) most = std::max(most, count);
      odd += blocks - most;
    }
  return odd;
}

}  // namespace

TEST_CASE("runs of equal length multiply the same, each row once for each filter") {
  Random r(71);
  for (int i = 0; i < 100; ++i) {
    const WeightShape s = draw_shape(r);
    const auto w = r.weight(s);
    const auto packed = pack_weight(w.data(), s);
    const int channels = static_cast<int>(r.between(1, s.in_channels_per_group));
    const auto plain = prepare_packed(packed.data(), packed.size(), {channels, false});
    const auto equal = prepare_packed(packed.data(), packed.size(), {channels, true});
    CHECK(products(*plain) == products(*equal));
  }
}

TEST_CASE("patterns of single filters have runs of equal length, shared ones stay one run") {
  Random r(73);
  const WeightShape s{128, 64, 3, 3, 1};
  const auto odd = [&](int share, bool equal) {
    const auto w = pattern_weight(r, s, share, 1.0, false);
    const auto packed = pack_weight(w.data(), s);
    const auto prepared = prepare_packed(packed.data(), packed.size(), {16, equal});
    if (share == 4) CHECK(full_runs(*prepared) == 1.0);
    return odd_runs(*prepared);
  };
  CHECK(odd(1, true) * 2 < odd(1, false));
  CHECK(odd(4, true) == 0);
}

TEST_CASE("filters keep their places where moving them does not help") {
  Random r(67);
  std::vector<uint32_t> identity(64);
  std::iota(identity.begin(), identity.end(), 0);
  const WeightShape s{64, 32, 3, 3, 1};
  CHECK(choose_filter_order(r.normals(s.elements()).data(), s) == identity);
  CHECK(choose_filter_order(pattern_weight(r, s, 4, 1.0, false).data(), s) == identity);
  CHECK(choose_filter_order(std::vector<float>(static_cast<size_t>(s.elements()), 0.0f).data(), s) ==
        identity);
}

TEST_CASE("packed bytes of every scheme against int32 CSR") {
  Random r(5);
  const WeightShape s{128, 64, 3, 3, 1};
  const auto ratio = [&](const char* scheme, const WeightShape& shape, const std::vector<float>& w) {
    const auto nonzeros =
        static_cast<size_t>(std::count_if(w.begin(), w.end(), [](float x) { return x != 0; }));
    const size_t csr = 8 * nonzeros + 4 * static_cast<size_t>(shape.out_channels + 1);
    const double value = static_cast<double>(pack_weight(w.data(), shape).size()) / static_cast<double>(csr);
    MESSAGE(scheme, ": packed / CSR = ", value);
    return value;
  };
  // PatDNN's FKW is the reference for patterns: at most 0.7.
  CHECK(ratio("8 patterns", s, pattern_weight(r, s, 1, 1.0, false)) <= 0.7);
  CHECK(ratio("8 patterns for 4 filters", s, pattern_weight(r, s, 4, 1.0, true)) <= 0.7);
  CHECK(ratio("8 patterns, connectivity 3.6x", s, pattern_weight(r, s, 1, 1 / 3.6, false)) <= 0.7);
  CHECK(ratio("8 patterns for 4 filters, connectivity 3.6x", s, pattern_weight(r, s, 4, 1 / 3.6, true)) <=
        0.7);

  auto connectivity = r.normals(s.elements()), punched = connectivity, unstructured = connectivity;
  auto structured = connectivity;
  std::vector<bool> used(9);
  for (size_t k = 0; k < connectivity.size() / 9; ++k) {
    const bool kept = r.chance(0.3);
    const size_t f = k / 64, c = k % 64;
    // Block-punched: in blocks of 8 filters x 4 channels the same weights of every kernel are kept.
    for (size_t t = 0; t < 9; ++t) {
      const uint64_t hash = (f / 8 * 131 + c / 4) * 9 + t;
      if (!kept) connectivity[k * 9 + t] = 0;
      if ((hash * 0x9E3779B97F4A7C15ull >> 32) % 10 >= 3) punched[k * 9 + t] = 0;
      if (!r.chance(0.3)) unstructured[k * 9 + t] = 0;
      if (f % 3 != 0 || c % 4 == 1) structured[k * 9 + t] = 0;
    }
  }
  CHECK(ratio("connectivity 0.7", s, connectivity) <= 0.6);
  CHECK(ratio("block-punched 8x4, 0.7", s, punched) <= 0.7);
  CHECK(ratio("structured", s, structured) <= 0.6);
  CHECK(ratio("unstructured 0.7", s, unstructured) <= 1.0);
  const WeightShape linear{256, 512, 1, 1, 1};
  auto blocks = r.normals(linear.elements());
  for (size_t k = 0; k < blocks.size(); ++k)
    if (((k / 512 / 8 * 512 + k % 512) * 0x9E3779B97F4A7C15ull >> 32) % 10 >= 2) blocks[k] = 0;
  CHECK(ratio("linear, blocks of 8 features, 0.8", linear, blocks) <= 0.8);
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
    CHECK_THROWS_AS(prepare_packed(packed.data(), packed.size(), {4}), Error);
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
      prepare_packed(packed.data(), packed.size(), {3});
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
