// SPDX-License-Identifier: Apache-2.0
#include "core/weights/run_lengths.h"

#include <algorithm>

namespace semisparse {
namespace {

// In cycles: a branch that was not foreseen, and what a row more costs that is cut in two, by the number of
// its filters. (Tried on patterns of single filters, 256 -> 256 at 14x14 and 512 -> 512 at 7x7: half or twice
// as much makes 1 or 2% of a difference.)
constexpr double kMispredicted = 16, kCut[5] = {0, 0, 4, 1, 1};

// The length to which runs of these lengths are cut; that of the longest where it does not pay.
size_t common_length(const std::vector<size_t>& lengths, int filters) {
  const size_t longest = *std::max_element(lengths.begin(), lengths.end());
  std::vector<int> blocks(longest + 1);
  for (const size_t length : lengths) ++blocks[length];
  const auto all = static_cast<double>(lengths.size());
  double least = kMispredicted * (all - *std::max_element(blocks.begin(), blocks.end()));
  size_t common = longest;
  double longer = 0, cut = 0;  // runs longer than `length`, and their rows past it
  for (size_t length = longest; length-- > 0;) {
    longer += blocks[length + 1];
    cut += longer;
    const double cost = kMispredicted * (all - longer - blocks[length]) + kCut[filters] * cut;
    if (cost < least) {
      least = cost;
      common = length;
    }
  }
  return common;
}

// The part of these filters for which a row is computed in one run, the rest being for another: one of two;
// of three or four the two that have the fewest rows, so that runs of two are as long as each other.
unsigned first_part(unsigned filters, const BlockRuns& runs) {
  if (__builtin_popcount(filters) == 2) return filters & (0u - filters);
  unsigned best = 0;
  for (unsigned pair = 1; pair < 15; ++pair)
    if (__builtin_popcount(pair) == 2 && (pair & ~filters) == 0 &&
        (best == 0 || runs[pair].size() < runs[best].size()))
      best = pair;
  return best;
}

void cut_run(unsigned filters, size_t length, BlockRuns* runs) {
  auto& rows = (*runs)[filters];
  while (rows.size() > length) {
    const unsigned first = first_part(filters, *runs);
    (*runs)[first].push_back(rows.back());
    (*runs)[filters & ~first].push_back(rows.back());
    rows.pop_back();
  }
}

// Whether all rows are in one run, as dense weights and patterns shared by 4 filters have them.
bool one_run(const BlockRuns& runs) {
  return std::count_if(runs.begin(), runs.end(), [](const auto& rows) { return !rows.empty(); }) <= 1;
}

}  // namespace

void equalize_runs(std::vector<BlockRuns>* blocks) {
  if (std::all_of(blocks->begin(), blocks->end(), one_run)) return;
  for (int count = 4; count > 1; --count) {
    for (unsigned filters = 1; filters < 16; ++filters) {
      if (__builtin_popcount(filters) != count) continue;
      std::vector<size_t> lengths;
      for (const BlockRuns& runs : *blocks) lengths.push_back(runs[filters].size());
      const size_t length = common_length(lengths, count);
      for (BlockRuns& runs : *blocks) cut_run(filters, length, &runs);
    }
  }
  for (BlockRuns& runs : *blocks)
    for (auto& rows : runs)
      std::sort(rows.begin(), rows.end(),
                [](const RunRow& a, const RunRow& b) { return a.panel_row < b.panel_row; });
}

}  // namespace semisparse
