// SPDX-License-Identifier: Apache-2.0
// Runs as long as those of the neighbouring blocks.
//
// Where filters have zeros of their own, the 15 runs of a block are short, and each ends in a branch that no
// predictor foresees: its length is chance. (Patterns of single filters at 256 -> 256 channels, 14x14: 64% of
// the FMA peak; the same number of rows and products, but the same lengths in every block: 89%.) A row that
// several filters use may as well be computed for some of them in one run and for the rest in another: the
// products are the same, only the row is loaded twice. So whatever a run has more than its neighbours moves
// to runs of fewer filters, until only the four runs of single filters take up what is left. Where every
// filter has as many weights as any other, as with patterns, these are as long as each other as well.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace semisparse {

// A row of a chunk: its number in the panel and in the table of weights it comes from.
struct RunRow {
  uint16_t panel_row;
  uint32_t table_row;
};

// The runs of one block: [bit set of filters], rows increasing.
using BlockRuns = std::array<std::vector<RunRow>, 16>;

// `blocks`: all of a chunk.
void equalize_runs(std::vector<BlockRuns>* blocks);

}  // namespace semisparse
