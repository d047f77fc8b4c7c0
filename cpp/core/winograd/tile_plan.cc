// SPDX-License-Identifier: Apache-2.0
#include "core/winograd/tile_plan.h"

#include <algorithm>

#include "core/base/task_shares.h"

namespace semisparse {
namespace {

std::vector<uint8_t> tile_mask(int tile, int64_t out_h, int64_t out_w, const uint8_t* mask) {
  const int64_t columns = (out_w + tile - 1) / tile, rows = (out_h + tile - 1) / tile;
  std::vector<uint8_t> tiles(static_cast<size_t>(rows * columns), mask == nullptr);
  if (mask != nullptr)
    for (int64_t y = 0; y < out_h; ++y)
      for (int64_t x = 0; x < out_w; ++x)
        if (mask[y * out_w + x] != 0) tiles[static_cast<size_t>(y / tile * columns + x / tile)] = 1;
  return tiles;
}

// Whether some pixels of tiles [first, last) of a row are computed and others not.
bool mixed(const uint8_t* mask, int32_t row, int32_t first, int32_t last, const TilePlan& plan) {
  const int tile = plan.size.tile;
  const int32_t end_y = std::min(plan.out_h, (row + 1) * tile), end_x = std::min(plan.out_w, last * tile);
  bool any = false, all = true;
  for (int32_t y = row * tile; y < end_y; ++y)
    for (int32_t x = first * tile; x < end_x; ++x) {
      const bool computed = mask[y * plan.out_w + x] != 0;
      any = any || computed;
      all = all && computed;
    }
  return any && !all;
}

// Which pixels of a segment are computed: bits of vector j of pixel row y at [y * tile + j].
void add_pixels(const uint8_t* mask, int lanes, TileSegment* segment, TilePlan* plan) {
  segment->pixels = static_cast<int32_t>(plan->pixels.size());
  for (int y = 0; y < plan->size.tile; ++y) {
    for (int j = 0; j < plan->size.tile; ++j) {
      const int32_t out_y = segment->row * plan->size.tile + y,
                    out_x = segment->first * plan->size.tile + j * lanes;
      uint32_t bits = 0;
      for (int l = 0; l < lanes; ++l)
        if (out_y < plan->out_h && out_x + l < plan->out_w && mask[out_y * plan->out_w + out_x + l] != 0)
          bits |= 1u << l;
      plan->pixels.push_back(bits);
    }
  }
}

}  // namespace

bool panels_are_even(const TilePlan& plan, int64_t images, int threads) {
  const auto& panels = plan.tiles->panels;
  const int64_t count = static_cast<int64_t>(panels.size()), tasks = images * count;
  if (tasks >= 4 * threads) return true;
  int64_t most = 0, all = 0;
  for (int t = 0; t < threads; ++t) {
    int64_t vectors = 0;
    const int64_t end = TaskShares::begin(tasks, t + 1, threads);
    for (int64_t task = TaskShares::begin(tasks, t, threads); task < end; ++task)
      vectors += panels[static_cast<size_t>(task % count)].vectors;
    most = std::max(most, vectors);
    all += vectors;
  }
  return 100 * most * threads <= 105 * all;
}

int64_t count_tiles(int tile, int64_t out_h, int64_t out_w, const uint8_t* mask) {
  const auto tiles = tile_mask(tile, out_h, out_w, mask);
  return std::count(tiles.begin(), tiles.end(), 1);
}

std::shared_ptr<const TilePlan> make_tile_plan(WinogradSize size, int32_t out_h, int32_t out_w,
                                               const uint8_t* mask, const ColumnTiling& tiling) {
  const int tile = size.tile;
  auto plan = std::make_shared<TilePlan>();
  plan->size = size;
  plan->out_h = out_h;
  plan->out_w = out_w;
  plan->rows = (out_h + tile - 1) / tile;
  plan->columns = (out_w + tile - 1) / tile;
  const auto computed = tile_mask(tile, out_h, out_w, mask);
  ColumnGeometry geometry;
  geometry.out_h = plan->rows;
  geometry.out_w = geometry.step_y = plan->columns;
  geometry.step_x = 1;
  // Panels for each thread; or, if those would not be even, as wide ones as can be, whose filters are shared.
  for (const int threads : {tiling.threads, 1}) {
    plan->tiles = make_column_plan(geometry, computed.data(), {tiling.lanes, tiling.max_vectors, 0, threads});
    if (panels_are_even(*plan, 1, tiling.threads)) break;
  }

  const int lanes = tiling.lanes;
  int32_t number = 0;  // of computed tiles so far
  size_t panel = 0;
  const auto first_column = [&](size_t p) {
    return p < plan->tiles->panels.size() ? plan->tiles->panels[p].first_vector * lanes : INT32_MAX;
  };
  plan->panels.resize(plan->tiles->panels.size());
  for (int32_t row = 0; row < plan->rows; ++row) {
    for (int32_t at = 0; at < plan->columns;) {
      TileSegment segment;
      segment.row = row;
      segment.first = at;
      segment.index = static_cast<int32_t>(plan->indices.size());
      int32_t rank = 0;
      for (; at < plan->columns && segment.count < lanes; ++at) {
        if (computed[static_cast<size_t>(row * plan->columns + at)] != 0) {
          if (number == first_column(panel + 1)) {  // this tile is the first of the next panel
            if (segment.count > 0) break;
            ++panel;
            plan->panels[panel].first = static_cast<int32_t>(plan->segments.size());
          }
          segment.computed |= 1u << segment.count;
          plan->indices.push_back(rank++);
          ++number;
        } else {
          plan->indices.push_back(0);
        }
        ++segment.count;
      }
      plan->indices.resize(static_cast<size_t>(segment.index + lanes), 0);
      segment.acc = number - rank - first_column(panel);
      if (rank == 0) segment.acc = 0;
      if (mask != nullptr && mixed(mask, row, segment.first, at, *plan)) {
        add_pixels(mask, lanes, &segment, plan.get());
        for (int32_t t = segment.first; t < at; ++t)
          segment.whole = segment.whole && !mixed(mask, row, t, t + 1, *plan);
      }
      plan->segments.push_back(segment);
      ++plan->panels[panel].count;
    }
  }
  return plan;
}

}  // namespace semisparse
