// SPDX-License-Identifier: Apache-2.0
// Convolution by the row-run kernels without packing: rows of the im2col matrix are read where they lie, in
// the input or in a padded copy of it. A row is a channel and a tap, that is an offset; a vector of columns
// is a run of neighbouring pixels, that is a start. For strides over 1 the copy is cut into phases, in which
// such pixels are neighbours. Worth it where packing costs more than the few columns that are computed for
// nothing: unmasked layers, masks of aligned runs, weights with few nonzeros.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/columns/column_plan.h"
#include "core/conv2d/conv2d.h"
#include "core/conv2d/padded_input.h"
#include "core/weights/prepare.h"

namespace semisparse {

// Of tensors of E, float or Half.
template <class E>
bool direct_applies(const Conv2dGeometry& geometry);

// Vectors of neighbouring pixels that cover all computed columns, in panels that `threads` share; no windows,
// no tail.
template <class E>
std::shared_ptr<const ColumnPlan> direct_plan(const Conv2dGeometry& geometry, const uint8_t* mask,
                                              int threads = 1);

// Channels in a chunk of the weights. `density`: nonzeros of all weights.
template <class E>
int direct_chunk(const Conv2dGeometry& geometry, const ColumnPlan& plan, double density);

// Panels that are computed together, and the rows of the phases that they read.
struct Band {
  int64_t first_panel, panels;
  RowRange rows;
};

// Where the rows of the matrix are read: of channels that lie one after the other, or are copied so, band by
// band.
struct DirectLayout {
  std::vector<Band> bands;
  int64_t phase_floats = 0, channel_floats = 0;  // from one phase, one channel to the next
  std::vector<uint32_t> offsets;  // for each entry of PreparedWeight::rows: bytes from the first pixel
};

template <class E>
DirectLayout direct_layout(const Conv2dGeometry& geometry, const PreparedWeight& weight,
                           const ColumnPlan& plan);

// `weight`: prepared with that chunk. Inputs that are read in place, but whose channels lie otherwise, get
// offsets of their own at every call.
template <class E>
void direct_conv2d(const Conv2dGeometry& geometry, const PreparedWeight& weight, const ColumnPlan& plan,
                   const DirectLayout& layout, const BasicConv2dOperands<E>& operands, Parallel& parallel);

}  // namespace semisparse
