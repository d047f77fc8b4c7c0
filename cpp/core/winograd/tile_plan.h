// SPDX-License-Identifier: Apache-2.0
// Which output tiles are computed, cut into panels, and where their pixels go: what a ColumnPlan is to
// im2col.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/columns/column_plan.h"
#include "core/winograd/size.h"

namespace semisparse {

// Up to `lanes` neighbouring tiles of one row of tiles that lie in one panel or are not computed. Bit t of
// `computed`: tile first + t lies in panel column acc + index[t].
struct TileSegment {
  int32_t row = 0, first = 0, count = 0;
  int32_t acc = 0;
  int32_t index = 0;  // in TilePlan::indices
  uint32_t computed = 0;
  // The pixel masks of the segment's tile * tile vectors, pixel rows first, in TilePlan::pixels; -1: all its
  // pixels are computed, or none.
  int32_t pixels = -1;
  bool whole = true;  // each of its tiles has all its pixels computed, or none
};

struct TilePlan {
  WinogradSize size;
  int32_t rows = 0, columns = 0;  // of tiles
  int32_t out_h = 0, out_w = 0;
  // Tiles as columns: offsets of its vectors and windows count tiles, row-major. Segments are ours.
  std::shared_ptr<const ColumnPlan> tiles;
  struct PanelSegments {
    int32_t first = 0, count = 0;
  };
  std::vector<PanelSegments> panels;  // one for each panel of `tiles`
  std::vector<TileSegment> segments;
  std::vector<int32_t> indices;
  std::vector<uint32_t> pixels;
};

// `mask`: out_h*out_w bytes, 0 = skipped, or null. A tile is skipped if all its pixels are.
std::shared_ptr<const TilePlan> make_tile_plan(WinogradSize size, int32_t out_h, int32_t out_w,
                                               const uint8_t* mask, const ColumnTiling& tiling);

// Whether whole panels of so many images give every thread about as many vectors: no thread has over 5% more
// than its share, or there are enough panels for threads to help each other.
bool panels_are_even(const TilePlan& plan, int64_t images, int threads);

// Tiles with a pixel that is computed.
int64_t count_tiles(int tile, int64_t out_h, int64_t out_w, const uint8_t* mask);

}  // namespace semisparse
