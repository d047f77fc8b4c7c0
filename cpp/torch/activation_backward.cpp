// SPDX-License-Identifier: Apache-2.0
#include "activation_backward.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/hardswish_backward.h>
#include <ATen/ops/hardtanh_backward.h>
#include <ATen/ops/leaky_relu_backward.h>
#include <ATen/ops/sigmoid_backward.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/threshold_backward.h>

namespace semisparse::ops {

bool derivative_from_output(Activation activation) {
  return activation != Activation::silu && activation != Activation::hardswish;
}

at::Tensor activation_backward(Activation activation, const at::Tensor& grad, const at::Tensor& value) {
  switch (activation) {
    case Activation::none:
      return grad;
    case Activation::relu:
      return at::threshold_backward(grad, value, 0);
    case Activation::relu6:
      return at::hardtanh_backward(grad, value, 0, 6);
    case Activation::leaky_relu:
      return at::leaky_relu_backward(grad, value, 0.01, /*self_is_result=*/true);
    case Activation::sigmoid:
      return at::sigmoid_backward(grad, value);
    case Activation::silu: {
      if (!at::GradMode::is_enabled()) return at::silu_backward(grad, value);
      const at::Tensor sigmoid = value.sigmoid();  // silu_backward itself cannot be differentiated once more
      return grad * (sigmoid + value * (sigmoid - sigmoid * sigmoid));
    }
    case Activation::hardswish:
      return at::hardswish_backward(grad, value);
  }
  TORCH_INTERNAL_ASSERT(false, "semisparse: activation without a derivative");
}

}  // namespace semisparse::ops
