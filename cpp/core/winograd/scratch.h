// SPDX-License-Identifier: Apache-2.0
// Sizes of the memory that the tile kernels work in.
#pragma once

#include <cstddef>

#include "core/winograd/tile_plan.h"

namespace semisparse {

struct TileScratch {
  size_t line;   // floats of one line of pixels
  size_t lines;  // floats of all the panel's lines
  size_t array;  // floats of one lane array (input_tiles.h)

  // For a panel that spans `tile_rows` rows of tiles. Forced inline: instruction sets share no function.
  __attribute__((always_inline)) TileScratch(const TilePlan& plan, int lanes, int tile_rows) {
    const size_t columns = static_cast<size_t>(plan.columns), l = static_cast<size_t>(lanes);
    line = (columns / l + 1) * l * static_cast<size_t>(plan.size.tile);
    lines = line * static_cast<size_t>((tile_rows + 1) * plan.size.tile + plan.size.taps - 1);
    // One row of tiles more than the panel has, and what vectors may touch past the end.
    array = ((static_cast<size_t>(tile_rows) + 1) * columns + 4 * l) / l * l;
  }
};

}  // namespace semisparse
