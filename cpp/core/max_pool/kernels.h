// SPDX-License-Identifier: Apache-2.0
// One instruction set's max pooling of one plane, and the registry of all of them.
//
// The maximum over a window is that over its rows, then over its columns. So the rows of a row of windows are
// reduced first, whole vectors at a time, into one row with borders of -infinity that stays in the L1 cache;
// then neighbouring windows are reduced side by side, from loads that are shifted by one tap each (of which,
// at stride 2, the even lanes are kept).
#pragma once

#include <cstdint>
#include <vector>

#include "core/max_pool/max_pool.h"

namespace semisparse {

// Plain numbers only: an inline function of a header that was compiled for one instruction set must not
// become the one copy that the linker keeps for all.
struct MaxPoolArgs {
  const MaxPool2dGeometry* geometry;
  const float* in;      // one plane, neighbouring pixels of a row side by side
  int64_t row_stride;   // elements between the plane's rows
  int64_t first, last;  // output rows to compute: [first, last)
  int64_t out_w;
  int64_t row_length;  // of a row of maxima in `scratch`, see max_pool_row
  int64_t rows;        // of maxima that are made before the first of them is read
  float* scratch;      // so many rows, one more at strides above 2; aligned to a cache line
  float* out;          // the whole output plane, contiguous
};

struct MaxPoolKernels {
  const char* isa;
  int lanes;
  void (*pool)(const MaxPoolArgs& args);
};

// Length of the row of maxima: image and borders, and as far as the last, partly used vectors read; whole
// vectors.
int64_t max_pool_row(const MaxPool2dGeometry& geometry, int64_t lanes);

// Rows of maxima that are made together: columns are reduced from loads that no single store can be forwarded
// to, and such a load waits until the stores are in the cache. 4 KiB of rows are far enough away.
int64_t max_pool_rows(int64_t row_length);

// Every kernel set compiled into this library, best first.
const std::vector<const MaxPoolKernels*>& max_pool_kernels();

// The best one that this machine supports, or the one named by SEMISPARSE_ISA.
const MaxPoolKernels& selected_max_pool_kernels();

}  // namespace semisparse
