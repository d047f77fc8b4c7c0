// SPDX-License-Identifier: Apache-2.0
#include "core/columns/column_plan.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>

namespace semisparse {
namespace {

constexpr int kMaxTapGroup = 3;

// Cuts the lanes of one vector into windows, greedily from the left. Every lane of a window must find all
// `tap_group` taps inside the 2*lanes elements.
int cut_windows(const int32_t* offsets, int lanes, int tap_reach, std::vector<PackWindow>* windows,
                std::vector<int32_t>* indices) {
  int count = 0;
  uint32_t left = (1u << lanes) - 1;
  while (left != 0) {
    const int first = __builtin_ctz(left);
    const int32_t base = offsets[first];
    uint32_t taken = 0;
    for (int l = first; l < lanes; ++l)
      if ((left >> l & 1) && offsets[l] - base + tap_reach < 2 * lanes) taken |= 1u << l;
    if (windows != nullptr) {
      PackWindow window;
      window.base = base;
      window.lanes = taken;
      window.index = static_cast<int32_t>(indices->size());
      for (int l = 0; l < lanes; ++l) indices->push_back(taken >> l & 1 ? offsets[l] - base : 0);
      windows->push_back(window);
    }
    left &= ~taken;
    ++count;
  }
  return count;
}

bool neighbours(const int32_t* offsets, int lanes) {
  for (int l = 1; l < lanes; ++l)
    if (offsets[l] != offsets[0] + l) return false;
  return true;
}

// The tap group whose loads, permutes and stores are fewest, counted over the whole plan.
int choose_tap_group(const std::vector<int32_t>& offsets, int lanes, const ColumnGeometry& g) {
  int best = 1;
  int64_t best_cost = 0;
  for (int group = 1; group <= std::min(kMaxTapGroup, g.kernel_w); ++group) {
    const int reach = (group - 1) * g.tap_x;
    if (reach >= 2 * lanes) break;
    const int passes = (g.kernel_w + group - 1) / group;
    int64_t cost = 0;
    for (size_t v = 0; v * lanes < offsets.size(); ++v) {
      const int32_t* lane = &offsets[v * lanes];
      const int windows = cut_windows(lane, lanes, reach, nullptr, nullptr);
      cost += int64_t{2} * windows * passes + int64_t{windows} * g.kernel_w;
    }
    if (group == 1 || cost < best_cost) {
      best = group;
      best_cost = cost;
    }
  }
  return best;
}

void add_segments(const uint8_t* mask, int32_t begin, int32_t end, int32_t column, int32_t panel_column,
                  int lanes, ColumnPlan* plan) {
  for (int32_t out = begin; out < end; out += lanes) {
    StoreSegment segment;
    segment.out = out;
    segment.count = std::min<int32_t>(lanes, end - out);
    segment.acc = column - panel_column;
    segment.index = static_cast<int32_t>(plan->indices.size());
    int32_t rank = 0;
    for (int l = 0; l < lanes; ++l) {
      const bool computed = l < segment.count && (mask == nullptr || mask[out + l] != 0);
      plan->indices.push_back(computed ? rank : 0);
      if (computed) {
        segment.mask |= 1u << l;
        ++rank;
      }
    }
    if (segment.mask == 0) segment.acc = 0;
    segment.neighbours = rank == segment.count;
    column += rank;
    plan->segments.push_back(segment);
  }
}

// Sets StoreSegment::run.
void find_runs(ColumnPlan* plan) {
  for (const Panel& panel : plan->panels) {
    for (int32_t i = panel.segments - 1; i >= 0; --i) {
      StoreSegment* const s = &plan->segments[static_cast<size_t>(panel.first_segment + i)];
      if (s->count != plan->lanes || !(s->neighbours || s->mask == 0)) continue;
      const bool goes_on = i + 1 < panel.segments && s[1].run > 0 && s[1].neighbours == s->neighbours &&
                           s[1].out == s->out + plan->lanes &&
                           (!s->neighbours || s[1].acc == s->acc + plan->lanes);
      s->run = goes_on ? s[1].run + 1 : 1;
    }
  }
}

// Panels of nearly equal width: a last panel of one vector would be bound by loads, not by arithmetic. As
// many for each thread as for any other, if that leaves them half as wide as they may be: threads that share
// a panel read what the others wrote. But not one vector, whose sums the kernels round otherwise: results
// must not depend on the number of threads. Sets ColumnPlan::widest.
int32_t count_panels(int32_t vectors, const ColumnTiling& tiling, ColumnPlan* plan) {
  const int32_t fewest = std::max(1, (vectors + tiling.max_vectors - 1) / tiling.max_vectors);
  plan->widest = (vectors + fewest - 1) / fewest;
  const int32_t even = (fewest + tiling.threads - 1) / tiling.threads * tiling.threads;
  return vectors >= even * std::max(2, (tiling.max_vectors + 1) / 2) ? even : fewest;
}

}  // namespace

std::shared_ptr<const ColumnPlan> make_column_plan(const ColumnGeometry& g, const uint8_t* mask,
                                                   const ColumnTiling& tiling) {
  const int lanes = tiling.lanes;
  auto plan = std::make_shared<ColumnPlan>();
  plan->lanes = lanes;
  const int32_t pixels = g.out_h * g.out_w;
  std::vector<int32_t> kept;
  kept.reserve(static_cast<size_t>(pixels));
  for (int32_t p = 0; p < pixels; ++p)
    if (mask == nullptr || mask[p] != 0) kept.push_back(p);
  plan->kept = static_cast<int64_t>(kept.size());

  if (kept.empty()) {
    Panel panel;
    add_segments(mask, 0, pixels, 0, 0, lanes, plan.get());
    panel.segments = static_cast<int32_t>(plan->segments.size());
    plan->panels.push_back(panel);
    return plan;
  }

  const int32_t columns = static_cast<int32_t>(kept.size());
  const auto offset = [&](int32_t column) {
    const int32_t p = kept[static_cast<size_t>(column)];
    return p / g.out_w * g.step_y + p % g.out_w * g.step_x;
  };
  const int32_t tail = columns > lanes && columns % lanes <= tiling.max_tail ? columns % lanes : 0;
  for (int32_t c = columns - tail; c < columns; ++c) plan->tail_offsets.push_back(offset(c));

  // Input offset of every lane. Lanes past the last column continue it, so that they do not break up a vector
  // whose lanes are neighbours; what they read is never used.
  const int32_t vectors = (columns - tail + lanes - 1) / lanes;
  std::vector<int32_t> offsets(static_cast<size_t>(vectors) * lanes);
  for (int32_t i = 0; i < vectors * lanes; ++i)
    offsets[static_cast<size_t>(i)] =
        i < columns ? offset(i) : offsets[static_cast<size_t>(i) - 1] + (g.step_x == 1 ? 1 : 0);
  plan->tap_group = choose_tap_group(offsets, lanes, g);
  // A window may begin at one of those last lanes.
  plan->read_ahead = 3 * lanes;
  const int reach = (plan->tap_group - 1) * g.tap_x;
  for (int32_t v = 0; v < vectors; ++v) {
    const int32_t* lane = &offsets[static_cast<size_t>(v) * lanes];
    PackVector vector;
    vector.base = lane[0];
    vector.window = static_cast<int32_t>(plan->windows.size());
    if (plan->tap_group > 1 || !neighbours(lane, lanes))
      vector.windows = cut_windows(lane, lanes, reach, &plan->windows, &plan->indices);
    plan->vectors.push_back(vector);
  }

  const int32_t panels = count_panels(vectors, tiling, plan.get());
  int32_t pixel = 0;
  for (int32_t i = 0, v = 0; i < panels; ++i) {
    Panel panel;
    panel.first_vector = v;
    panel.first_segment = static_cast<int32_t>(plan->segments.size());
    const int32_t column = v * lanes;
    panel.vectors = (vectors - v) / (panels - i);
    if (i + 1 == panels) panel.tail = tail;
    const int32_t last_column = std::min(columns, (v + panel.vectors) * lanes + panel.tail) - 1;
    panel.first_y = kept[static_cast<size_t>(column)] / g.out_w;
    panel.last_y = kept[static_cast<size_t>(last_column)] / g.out_w;
    v += panel.vectors;
    const int32_t end = i + 1 == panels ? pixels : kept[static_cast<size_t>(v) * static_cast<size_t>(lanes)];
    add_segments(mask, pixel, end, column, column, lanes, plan.get());
    pixel = end;
    panel.segments = static_cast<int32_t>(plan->segments.size()) - panel.first_segment;
    plan->panels.push_back(panel);
  }
  find_runs(plan.get());
  return plan;
}

std::shared_ptr<const ColumnPlan> make_direct_plan(int32_t out_h, int32_t out_w, int32_t pitch,
                                                   const uint8_t* mask, const ColumnTiling& tiling) {
  const int32_t lanes = tiling.lanes, pixels = out_h * out_w,
                last_start = (out_h - 1) * pitch + out_w - lanes;
  auto plan = std::make_shared<ColumnPlan>();
  plan->lanes = lanes;
  const auto computed = [&](int32_t p) { return mask == nullptr || mask[p] != 0; };
  const auto place = [&](int32_t p) { return p / out_w * pitch + p % out_w; };
  std::vector<int32_t> column(static_cast<size_t>(pixels), -1), first_pixel;
  int32_t start = 0, end = -1;
  for (int32_t p = 0; p < pixels; ++p) {
    if (!computed(p)) continue;
    ++plan->kept;
    const int32_t at = place(p);
    if (at >= end) {
      start = std::min(at, last_start);
      end = start + lanes;
      PackVector vector;
      vector.base = start;
      plan->vectors.push_back(vector);
      first_pixel.push_back(p);
    }
    column[static_cast<size_t>(p)] = static_cast<int32_t>(plan->vectors.size() - 1) * lanes + at - start;
  }
  const int32_t vectors = static_cast<int32_t>(plan->vectors.size());
  const int32_t panels = count_panels(vectors, tiling, plan.get());
  int32_t pixel = 0;
  for (int32_t i = 0, v = 0; i < panels; ++i) {
    Panel panel;
    panel.first_vector = v;
    panel.first_segment = static_cast<int32_t>(plan->segments.size());
    panel.vectors = (vectors - v) / (panels - i);
    const int32_t panel_column = v * lanes;
    v += panel.vectors;
    const int32_t stop = i + 1 == panels ? pixels : first_pixel[static_cast<size_t>(v)];
    if (panel.vectors > 0) {
      int32_t last = stop - 1;
      while (!computed(last)) --last;
      panel.first_y = plan->vectors[static_cast<size_t>(panel.first_vector)].base / pitch;
      panel.last_y = last / out_w;
    }
    while (pixel < stop) {
      // As many pixels as have their columns within one vector's length of each other.
      StoreSegment segment;
      segment.out = pixel;
      segment.index = static_cast<int32_t>(plan->indices.size());
      int32_t origin = -1;
      for (; pixel < stop && segment.count < lanes; ++pixel, ++segment.count) {
        const int32_t c = column[static_cast<size_t>(pixel)];
        if (c >= 0 && origin < 0) origin = c;
        if (c >= origin + lanes) break;
        plan->indices.push_back(c < 0 ? 0 : c - origin);
        if (c >= 0) segment.mask |= 1u << segment.count;
      }
      plan->indices.resize(static_cast<size_t>(segment.index + lanes), 0);
      segment.acc = origin < 0 ? 0 : origin - panel_column;
      segment.neighbours = true;
      for (int32_t l = 0; l < segment.count; ++l)
        segment.neighbours = segment.neighbours && (segment.mask >> l & 1) != 0 &&
                             plan->indices[static_cast<size_t>(segment.index + l)] == l;
      plan->segments.push_back(segment);
    }
    panel.segments = static_cast<int32_t>(plan->segments.size()) - panel.first_segment;
    plan->panels.push_back(panel);
  }
  find_runs(plan.get());
  return plan;
}

namespace {

struct CacheEntry {
  ColumnGeometry geometry;
  ColumnTiling tiling;
  bool masked;
  uint64_t hash;
  std::vector<uint8_t> mask;
  std::shared_ptr<const ColumnPlan> plan;
};

// Masks are small beside the work they save: 64-bit multiply-and-xor over 8 bytes at a time.
uint64_t hash_mask(const uint8_t* mask, size_t size) {
  uint64_t hash = size * 0x9e3779b97f4a7c15ull;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, mask + i, std::min<size_t>(8, size - i));
    hash = (hash ^ word) * 0xff51afd7ed558ccdull;
    hash ^= hash >> 32;
  }
  return hash;
}

}  // namespace

std::shared_ptr<const ColumnPlan> cached_column_plan(const ColumnGeometry& geometry, const uint8_t* mask,
                                                     const ColumnTiling& tiling) {
  constexpr size_t kCapacity = 512;  // layers of several models
  static std::mutex mutex;
  static std::list<CacheEntry> entries;  // most recently used first
  const size_t size =
      mask == nullptr ? 0 : static_cast<size_t>(geometry.out_h) * static_cast<size_t>(geometry.out_w);
  const uint64_t hash = mask == nullptr ? 0 : hash_mask(mask, size);
  const auto matches = [&](const CacheEntry& e) {
    return e.hash == hash && e.masked == (mask != nullptr) && e.tiling == tiling && e.geometry == geometry &&
           (mask == nullptr || std::memcmp(e.mask.data(), mask, size) == 0);
  };
  {
    std::lock_guard<std::mutex> lock(mutex);
    for (auto it = entries.begin(); it != entries.end(); ++it) {
      if (matches(*it)) {
        entries.splice(entries.begin(), entries, it);
        return it->plan;
      }
    }
  }
  CacheEntry entry{geometry, tiling, mask != nullptr, hash, {}, nullptr};
  if (mask != nullptr) entry.mask.assign(mask, mask + size);
  entry.plan = make_column_plan(geometry, mask, tiling);
  auto plan = entry.plan;
  std::lock_guard<std::mutex> lock(mutex);
  entries.push_front(std::move(entry));
  if (entries.size() > kCapacity) entries.pop_back();
  return plan;
}

}  // namespace semisparse
