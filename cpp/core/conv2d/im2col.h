// SPDX-License-Identifier: Apache-2.0
// Convolution as a product with the im2col matrix, packed panel by panel: any kernel, stride, dilation,
// groups. Skips masked columns and every zero weight.
#pragma once

#include <memory>

#include "core/columns/column_plan.h"
#include "core/conv2d/conv2d.h"
#include "core/weights/prepare.h"

namespace semisparse {

// Of tensors of E, float or Half. `dense`: hardly a weight is zero. A few columns past full vectors then
// become a tail, whose kernel is fast for runs of all four filters only. `threads` share its panels.
template <class E>
std::shared_ptr<const ColumnPlan> im2col_plan(const Conv2dGeometry& geometry, const uint8_t* mask, bool dense,
                                              int threads = 1);

// Channels in a chunk of the weights. `density`: nonzeros of all weights.
template <class E>
int im2col_chunk(const Conv2dGeometry& geometry, const ColumnPlan& plan, double density);

// Whether its runs are made as long as each other (weights/run_lengths.h): where panels are narrow, and a
// run is over before the branch that ends it is settled. (Patterns of single filters, AVX-512: panels of 4 or
// 5 vectors, 256 -> 256 at 14x14, reach 70% of the FMA peak instead of 64, 512 -> 512 at 7x7 57% instead of
// 43. Panels of 6 lose 4%: the arithmetic of a run is time enough, and rows loaded twice are dear.)
template <class E>
bool im2col_equal_runs(const ColumnPlan& plan);

// Panels of a task, if threads have enough of them: weights that leave the L2 cache serve several panels
// while a chunk of them is near.
int64_t im2col_panels_together(const ColumnPlan& plan, const PreparedWeight& weight);

// `weight`: prepared with that chunk and those runs.
template <class E>
void im2col_conv2d(const Conv2dGeometry& geometry, const PreparedWeight& weight, const ColumnPlan& plan,
                   const BasicConv2dOperands<E>& operands, Parallel& parallel);

}  // namespace semisparse
