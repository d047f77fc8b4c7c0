// SPDX-License-Identifier: Apache-2.0
// Checks of operator arguments. Shared by the CPU and the meta kernels, so that a graph that traces also
// runs; sizes may be symbolic. Every message names what was given, what is expected and what to do.
#pragma once

#include <c10/core/SymInt.h>
#include <c10/util/DimVector.h>

#include <array>

#include "ops.h"

namespace semisparse::ops {

// What both overloads of conv2d share besides their weight.
struct Conv2dArguments {
  const at::Tensor& input;
  const OptionalTensor& bias;
  at::IntArrayRef stride;
  at::IntArrayRef padding;
  at::IntArrayRef dilation;
  int64_t groups;
  const OptionalTensor& mask;
  const OptionalTensor& fill;
  std::string_view activation;
  const OptionalTensor& residual;
};

using SymShape4 = std::array<c10::SymInt, 4>;

// The weight's shape (OC, IC/groups, KH, KW) once it is known to be a weight of that type, or a packed one.
SymShape4 check_plain_weight(const at::Tensor& weight, const char* op, at::ScalarType type = at::kFloat);
SymShape4 check_packed_weight(const at::Tensor& packed, at::IntArrayRef weight_shape, const char* op);
void check_packed_bytes(const at::Tensor& packed, const char* op);

// That `weight` is a linear layer's: float32, (OUT, IN), no groups.
void check_linear_weight(const at::Tensor& weight, int64_t groups, const char* op);

// The type of a plain weight, bias, fill and residual: that of `input`, float16 or else float32.
at::ScalarType element_type(const at::Tensor& input);

// The output's shape (N, OC, OH, OW). `weight` is the plain or packed tensor, only asked for its device.
SymShape4 check_conv2d(const Conv2dArguments& arguments, const at::Tensor& weight,
                       const SymShape4& weight_shape);

struct MaxPool2dArguments {
  const at::Tensor& input;
  at::IntArrayRef kernel_size;
  at::IntArrayRef stride;  // empty: that of the kernel
  at::IntArrayRef padding;
  at::IntArrayRef dilation;
  bool ceil_mode;
};

// The output's shape (N, C, OH, OW).
SymShape4 check_max_pool2d(const MaxPool2dArguments& arguments);

struct LinearArguments {
  const at::Tensor& input;
  const at::Tensor& packed;
  at::IntArrayRef weight_shape;
  const OptionalTensor& bias;
  std::string_view activation;
};

// The output's shape (..., OUT).
c10::SymDimVector check_linear(const LinearArguments& arguments);

}  // namespace semisparse::ops
