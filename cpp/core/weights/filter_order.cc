// SPDX-License-Identifier: Apache-2.0
#include "core/weights/filter_order.h"

#include <algorithm>
#include <numeric>

#include "core/row_run/row_run.h"

namespace semisparse {
namespace {

constexpr uint64_t kMostWords = uint64_t{1} << 25;  // looked at while clustering

// Which rows each filter of one group uses, as bit sets.
struct Rows {
  size_t words;
  std::vector<uint64_t> bits;  // [filter][word]

  Rows(const float* weight, size_t filters, size_t rows) : words((rows + 63) / 64), bits(filters * words, 0) {
    for (size_t f = 0; f < filters; ++f)
      for (size_t r = 0; r < rows; ++r)
        if (weight[f * rows + r] != 0.0f) bits[f * words + r / 64] |= uint64_t{1} << r % 64;
  }
  const uint64_t* of(size_t filter) const { return &bits[filter * words]; }
};

int64_t common(const uint64_t* a, const uint64_t* b, size_t words) {
  int64_t count = 0;
  for (size_t i = 0; i < words; ++i) count += __builtin_popcountll(a[i] & b[i]);
  return count;
}

// Rows that blocks of four filters in this order read.
int64_t rows_read(const Rows& rows, const std::vector<uint32_t>& order) {
  int64_t count = 0;
  std::vector<uint64_t> used(rows.words);
  for (size_t first = 0; first < order.size(); first += kBlockFilters) {
    std::fill(used.begin(), used.end(), 0);
    for (size_t k = first; k < std::min(first + kBlockFilters, order.size()); ++k)
      for (size_t i = 0; i < rows.words; ++i) used[i] |= rows.of(order[k])[i];
    count += common(used.data(), used.data(), rows.words);
  }
  return count;
}

// Blocks one after the other: the largest filter that is left, then three times the one with most rows in
// common with the block. The first of equals, so that filters that are similar already keep their places.
std::vector<uint32_t> cluster(const Rows& rows, size_t filters) {
  std::vector<uint32_t> left(filters), order;
  std::iota(left.begin(), left.end(), 0);
  std::vector<int64_t> size(filters);
  for (size_t f = 0; f < filters; ++f) size[f] = common(rows.of(f), rows.of(f), rows.words);
  std::vector<uint64_t> used(rows.words);
  while (!left.empty()) {
    std::fill(used.begin(), used.end(), 0);
    for (int k = 0; k < kBlockFilters && !left.empty(); ++k) {
      size_t best = 0;
      int64_t most = -1;
      for (size_t i = 0; i < left.size(); ++i) {
        const int64_t gain = k == 0 ? size[left[i]] : common(used.data(), rows.of(left[i]), rows.words);
        if (gain > most) {
          most = gain;
          best = i;
        }
      }
      const uint32_t filter = left[best];
      for (size_t i = 0; i < rows.words; ++i) used[i] |= rows.of(filter)[i];
      order.push_back(filter);
      left.erase(left.begin() + static_cast<std::ptrdiff_t>(best));
    }
  }
  return order;
}

}  // namespace

std::vector<uint32_t> choose_filter_order(const float* weight, const WeightShape& shape) {
  const size_t filters = static_cast<size_t>(shape.out_channels / shape.groups);
  const size_t row_count = static_cast<size_t>(shape.in_channels_per_group * shape.taps());
  std::vector<uint32_t> order(static_cast<size_t>(shape.out_channels));
  std::iota(order.begin(), order.end(), 0);
  if (filters <= kBlockFilters) return order;
  const uint64_t words = (row_count + 63) / 64;
  if (uint64_t{filters} * filters / 2 * words * static_cast<uint64_t>(shape.groups) > kMostWords)
    return order;
  std::vector<uint32_t> best;
  int64_t before = 0, after = 0;
  for (int64_t g = 0; g < shape.groups; ++g) {
    const size_t first = static_cast<size_t>(g) * filters;
    const Rows rows(weight + first * row_count, filters, row_count);
    const std::vector<uint32_t> found = cluster(rows, filters);
    std::vector<uint32_t> identity(filters);
    std::iota(identity.begin(), identity.end(), 0);
    before += rows_read(rows, identity);
    after += rows_read(rows, found);
    for (const uint32_t f : found) best.push_back(static_cast<uint32_t>(first) + f);
  }
  // Less is not worth it: per-kernel patterns lose a few percent of their rows by moving, and no time.
  return 100 * after <= 90 * before ? best : order;
}

}  // namespace semisparse
