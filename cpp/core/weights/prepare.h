// SPDX-License-Identifier: Apache-2.0
// Weights in the order in which the row-run kernels read them: for every group, chunk of channels and block
// of 4 filters the runs of rows with the same subset of filters. Built once from the portable format; not
// stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/aligned.h"
#include "core/row_run/row_run.h"
#include "core/weights/packed.h"

namespace semisparse {

struct PreparedWeight {
  struct Chunk {
    int32_t first_channel = 0;  // in Group::channels
    int32_t channels = 0;
    size_t first_block = 0;  // in PreparedWeight::blocks; Group::blocks of them
  };
  struct Group {
    std::vector<int32_t> channels;  // input channels of the group with any weight, increasing
    std::vector<Chunk> chunks;
    int32_t first_position = 0;  // in PreparedWeight::filters
    int32_t filters = 0, blocks = 0;
  };

  WeightShape shape;
  std::vector<int32_t> filters;  // output channel at each position, group by group
  std::vector<Group> groups;
  std::vector<RunBlock> blocks;  // pointers into rows and weights
  std::vector<uint16_t> rows;
  std::vector<float, AlignedAllocator<float>> weights;
  // Winograd: a kernel is one row, or one for each phase of a strided convolution (taps play no part), with
  // one weight in each of so many planes. So many blocks of filters are computed together, plane by plane,
  // and lie in that order: weights of block b in plane p are p * plane_weights[b / together] floats behind
  // those of plane 0.
  int planes = 1;
  int together = 1;
  std::vector<size_t> plane_weights;
  // [block] 1: here begin `full_blocks` blocks whose filters all use every row of the chunk. Their weights do
  // not lie block by block, but row by row, first those of the first half of the blocks.
  int full_blocks = 0;
  std::vector<uint8_t> full;

  size_t bytes() const {
    return rows.size() * sizeof(uint16_t) + weights.size() * sizeof(float) + blocks.size() * sizeof(RunBlock);
  }
};

// How a kernel's taps (row-major, zeros included) become `rows` rows of weights in `count` planes: row r of
// plane p at planes[r * count + p].
struct KernelPlanes {
  int count = 1, rows = 1;
  std::function<void(const float* taps, float* planes)> transform;
  int together = 1, full_blocks = 0;  // see PreparedWeight; together is a multiple of full_blocks
};

// How weights are cut: channels (with all their taps) in a chunk, at least 1; and whether a chunk's runs are
// made as long as each other (run_lengths.h).
struct ChunkSettings {
  int channels = 1;
  bool equal_runs = false;
};

std::shared_ptr<const PreparedWeight> prepare_packed(const uint8_t* bytes, size_t size,
                                                     const ChunkSettings& chunks,
                                                     const KernelPlanes& planes = {});
// What inspect_packed says, and what takes reading the weights.
PackedInfo inspect_weights(const uint8_t* bytes, size_t size);

// Products that an output pixel of the filter with the most weights is the sum of.
int64_t fullest_filter(const uint8_t* bytes, size_t size);

std::shared_ptr<const PreparedWeight> prepare_plain(const float* weight, const WeightShape& shape,
                                                    int chunk_channels);

}  // namespace semisparse
