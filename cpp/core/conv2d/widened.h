// SPDX-License-Identifier: Apache-2.0
// float16 tensors computed in float32: widened, a few images at a time, and the result rounded once.
#pragma once

#include <functional>

#include "core/conv2d/conv2d.h"

namespace semisparse {

// Calls run(geometry, operands) for every part of the batch.
void widened_conv2d(const Conv2dGeometry& geometry, const HalfConv2dOperands& operands, Parallel& parallel,
                    const std::function<void(const Conv2dGeometry&, const Conv2dOperands&)>& run);

}  // namespace semisparse
