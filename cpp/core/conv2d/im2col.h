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

// Panels of a task, if threads have enough of them: weights that leave the L2 cache serve several panels
// while a chunk of them is near.
int64_t im2col_panels_together(const ColumnPlan& plan, const PreparedWeight& weight);

// `weight`: prepared with that chunk.
template <class E>
void im2col_conv2d(const Conv2dGeometry& geometry, const PreparedWeight& weight, const ColumnPlan& plan,
                   const BasicConv2dOperands<E>& operands, Parallel& parallel);

}  // namespace semisparse
