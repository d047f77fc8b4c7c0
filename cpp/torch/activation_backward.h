// SPDX-License-Identifier: Apache-2.0
// Derivatives of the activations that the operators fuse.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/conv2d/conv2d.h"

namespace semisparse::ops {

// Whether the derivative follows from the output alone; otherwise the value before the activation is computed
// again.
bool derivative_from_output(Activation activation);

// d loss / d z, where z is the value before the activation; `value` is the output or z, see above.
at::Tensor activation_backward(Activation activation, const at::Tensor& grad, const at::Tensor& value);

}  // namespace semisparse::ops
