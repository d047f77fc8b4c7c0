// SPDX-License-Identifier: Apache-2.0
// The sparse GEMM under everything, and the two copies around it.
//
// Columns (output pixels) lie along the vectors. A *panel* of up to max_vectors vectors of kept columns is
// packed for a chunk of im2col rows, so that it stays in the L1 cache. Filters go in blocks of 4. Inside a
// block and a chunk the rows are sorted by which of the 4 filters use them (15 non-empty subsets): a *run* is
// the list of rows of one subset and has an inner loop with fixed registers, no branch and no zero
// multiplied. Patterns, connectivity, blocks, unstructured and dense weights are the same kernel with
// different run lengths (PatDNN's filter-kernel reorder and load redundancy elimination, ASPLOS'20
// sections 5.2-5.4, with the column skipping of arXiv:2309.06626).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/half.h"
#include "core/columns/column_plan.h"
#include "core/conv2d/conv2d.h"

namespace semisparse {

constexpr int kBlockFilters = 4;
constexpr int kMaxVectors = 8;  // of a panel, whatever the instruction set

// The runs of one block of filters in one chunk. counts[s]: rows used by exactly the filters in bit set s;
// the runs follow each other in the order of run_order() in `rows` (numbers of panel rows) and `weights` (one
// for each filter of the subset). counts[0] is 1 if there is a run besides that of all four filters.
struct RunBlock {
  const uint16_t* rows = nullptr;
  const float* weights = nullptr;
  uint16_t counts[16] = {};
};

inline size_t count_rows(const RunBlock& block) {
  size_t rows = 0;
  for (int s = 1; s < 16; ++s) rows += block.counts[s];
  return rows;
}

// All four filters first, then three, two, one.
inline const uint8_t* run_order() {
  static const uint8_t order[15] = {15, 7, 11, 13, 14, 3, 5, 9, 6, 10, 12, 1, 2, 4, 8};
  return order;
}

// im2col of one chunk into a panel. Here and below E is the type of inputs and outputs, float or Half.
template <class E>
struct PackArgs {
  const E* const* channels;  // start of each channel's (padded) plane
  int channel_count;
  const ColumnPlan* plan;
  const Panel* panel;
  int kernel_h, kernel_w;
  int32_t tap_y, tap_x;  // input offsets between neighbouring taps
  E* out;                // row (channel * kernel_h + ky) * kernel_w + kx, `panel->vectors` vectors a row
};

// Rows [first_row, last_row) of a padded plane: (height, width) pixels, any strides, in the middle of zeros.
template <class E>
struct PadArgs {
  const E* in;  // the plane without padding
  int64_t height, width, stride_h, stride_w;
  int64_t pad_h, pad_w;
  int64_t first_row, last_row;
  const E* next;  // the plane that is copied after this one, fetched meanwhile; or null
  E* out;         // rows of width + 2 * pad_w
};

// A whole padded plane cut into stride_y * stride_x *phases*: phase (y, x), at `out` + (y * stride_x + x) *
// phase_floats, holds every stride_y-th row from y on and of it every stride_x-th pixel from x on, `pitch` a
// row; zeros past the end of the padded plane.
template <class E>
struct SplitArgs {
  const E* in;  // the plane without padding
  int64_t height, width, stride_h, stride_w;
  int64_t pad_h, pad_w;
  int64_t stride_y, stride_x;
  int64_t rows, pitch;  // of a phase
  int64_t phase_floats;
  E* out;
  E* line;  // scratch: pitch * stride_x + 2 * lanes elements
};

// im2col of one chunk for the columns of a panel's tail: every value four times, once for each filter of a
// block, so that lanes / 4 rows make one vector. Column j at out + j * column_stride.
template <class E>
struct TailPackArgs {
  const E* const* channels;
  int channel_count;
  const int32_t* offsets;  // of each column, in a plane
  int columns;
  int kernel_h, kernel_w;
  int32_t tap_y, tap_x;
  E* out;
  size_t column_stride;
};

// A block's sums over a panel's columns, and where they go.
template <class E>
struct StoreArgs {
  const float* acc;   // the first filter's sums
  size_t acc_stride;  // floats from one filter's sums to the next one's
  const ColumnPlan* plan;
  const Panel* panel;
  int filters;  // at most kBlockFilters
  float fill[kBlockFilters];
  float activated_fill[kBlockFilters];  // what a skipped pixel without a residual comes to
  const E* residual[kBlockFilters];     // each filter's output plane; all null: none
  E* output[kBlockFilters];             // each filter's output plane
  Activation activation;
  bool stream;  // past the caches, where vectors are cache lines
};

// One instruction set's kernels. Stateless; allocate nothing; start no thread. Weights and sums are floats
// whatever E is.
template <class E>
struct BasicRowRunKernels {
  const char* isa;
  const char* name;
  int lanes;
  int max_vectors;
  int max_tail;     // columns that a panel's tail may have
  bool equal_runs;  // whether packed panels narrower than max_vectors gain by runs of equal length
  // Adds one chunk of one block to `acc` (4 filters, `acc_stride` floats apart). The rows of the panel are
  // `vectors` long and lie one after the other. init: sums start from these 4 values instead of from acc, or
  // null.
  void (*gemm)(int vectors, const E* panel, const RunBlock& block, const float* init, float* acc,
               size_t acc_stride);
  // The same without a packed panel: `offsets` stands for block.rows; vector v of a row is read at starts[v],
  // so many bytes further on.
  void (*gemm_direct)(int vectors, const E* const* starts, const uint32_t* offsets, const RunBlock& block,
                      const float* init, float* acc, size_t acc_stride);
  // The same for so many blocks at once, all of whose filters use each of the `rows` rows of a panel of
  // acc_stride floats, any number of vectors: the weights of each half of these blocks lie row by row
  // (PreparedWeight::full). `columns` of a row are computed; the rest is left, or holds anything. start: sums
  // start from zero. Null if full_blocks is 0.
  int full_blocks;
  void (*gemm_full)(int columns, const E* panel, size_t rows, const float* weights, bool start, float* acc,
                    size_t acc_stride);
  void (*pad)(const PadArgs<E>& args);
  void (*split)(const SplitArgs<E>& args);
  void (*pack)(const PackArgs<E>& args);
  // The same as pack and gemm for the few columns of a panel's tail: filters and rows along the vector.
  // `sums` are `columns` vectors, which finish_tail adds up to one number for each filter (acc_stride floats
  // apart) and column.
  void (*pack_tail)(const TailPackArgs<E>& args);
  void (*gemm_tail)(int columns, const E* panel, size_t column_stride, const RunBlock& block,
                    const float* init, float* sums);
  void (*finish_tail)(int columns, const float* sums, float* acc, size_t acc_stride);
  void (*store)(const StoreArgs<E>& args);
  // The activation of `count` floats in place, a multiple of `lanes`, by the same instructions.
  void (*activate)(Activation activation, float* values, int64_t count);
};
using RowRunKernels = BasicRowRunKernels<float>;
// Products, and their sums within a chunk, in half precision; sums over chunks, bias and activation in
// float32. They have no tail.
using HalfKernels = BasicRowRunKernels<Half>;

// Every kernel set compiled into this library, best first.
const std::vector<const RowRunKernels*>& row_run_kernels();
const std::vector<const HalfKernels*>& half_kernels();

// The best one that this machine supports, or the one named by SEMISPARSE_ISA.
const RowRunKernels& selected_kernels();

// The same in half precision. Null where the processor has no such arithmetic, or SEMISPARSE_ISA names a set
// of float32 kernels.
const HalfKernels* selected_half_kernels();

// Either of them; Half only where they exist.
template <class E>
const BasicRowRunKernels<E>& kernels_for();
template <>
inline const RowRunKernels& kernels_for<float>() {
  return selected_kernels();
}
template <>
inline const HalfKernels& kernels_for<Half>() {
  return *selected_half_kernels();
}

// Rows of the widest panel of a plan that fill 5/8 of the L1 cache; the rest is for sums and weights on their
// way.
int64_t panel_rows_in_cache(const ColumnPlan& plan, size_t element_bytes = sizeof(float));

}  // namespace semisparse
