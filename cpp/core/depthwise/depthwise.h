// SPDX-License-Identifier: Apache-2.0
// Depthwise convolutions: every output channel reads one input channel, so there is no matrix product in
// them, and nothing to pack. Any kernel, stride, padding and dilation; masks, residual and activation as in
// conv2d.h.
#pragma once

#include <cstdint>

#include "core/base/parallel.h"
#include "core/conv2d/conv2d.h"
#include "core/depthwise/kernels.h"

namespace semisparse {

// Whether each of several groups has one input channel (and one output channel or more).
bool depthwise_applies(const Conv2dGeometry& geometry);

// `weight`: contiguous (OC, 1, KH, KW). `mask` as in conv2d. Masked pixels are not computed where a whole
// vector of them is masked; zero weights are multiplied like any others.
void depthwise_conv2d(const Conv2dGeometry& geometry, const float* weight, const uint8_t* mask,
                      const Conv2dOperands& operands, Parallel& parallel,
                      const DepthwiseKernels& kernels = selected_depthwise_kernels());

}  // namespace semisparse
