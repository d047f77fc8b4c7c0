// SPDX-License-Identifier: Apache-2.0
// The operators' implementations, one per dispatch key; schema.cpp registers them. Argument lists are those
// of the schema, in order.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace semisparse::ops {

using OptionalTensor = std::optional<at::Tensor>;

// CPU: the kernels of cpp/core.
at::Tensor conv2d_cpu(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                      at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                      int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                      std::string_view activation, const OptionalTensor& residual);
at::Tensor conv2d_packed_cpu(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                             const OptionalTensor& bias, at::IntArrayRef stride, at::IntArrayRef padding,
                             at::IntArrayRef dilation, int64_t groups, const OptionalTensor& mask,
                             const OptionalTensor& fill, std::string_view activation,
                             const OptionalTensor& residual);
at::Tensor pack_weight_cpu(const at::Tensor& weight, int64_t groups);
at::Tensor unpack_weight_cpu(const at::Tensor& packed);
at::Tensor unpack_weight_shaped_cpu(const at::Tensor& packed, at::IntArrayRef weight_shape, int64_t groups);
at::Tensor linear_cpu(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                      const OptionalTensor& bias, std::string_view activation);
at::Tensor max_pool2d_cpu(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                          at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode);

// Settings of the library, not of a graph.
std::string force_algorithm(std::string_view name);
void prefer_algorithm(const at::Tensor& packed, at::IntArrayRef input_size, std::string_view name);
std::string chosen_algorithm(const at::Tensor& packed, at::IntArrayRef input_size, at::IntArrayRef stride,
                             at::IntArrayRef padding, at::IntArrayRef dilation, const OptionalTensor& mask,
                             bool half);

// Meta: checks and shapes only, also with symbolic sizes (fake tensors, torch.compile, torch.export).
at::Tensor conv2d_meta(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                       int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                       std::string_view activation, const OptionalTensor& residual);
at::Tensor conv2d_packed_meta(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                              const OptionalTensor& bias, at::IntArrayRef stride, at::IntArrayRef padding,
                              at::IntArrayRef dilation, int64_t groups, const OptionalTensor& mask,
                              const OptionalTensor& fill, std::string_view activation,
                              const OptionalTensor& residual);
at::Tensor unpack_weight_shaped_meta(const at::Tensor& packed, at::IntArrayRef weight_shape, int64_t groups);
at::Tensor linear_meta(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                       const OptionalTensor& bias, std::string_view activation);
at::Tensor max_pool2d_meta(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                           at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode);

// Autograd: records the backward pass where one of the inputs needs it.
at::Tensor conv2d_autograd(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                           at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                           int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                           std::string_view activation, const OptionalTensor& residual);
at::Tensor conv2d_packed_autograd(const at::Tensor& input, const at::Tensor& packed,
                                  at::IntArrayRef weight_shape, const OptionalTensor& bias,
                                  at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                                  int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                                  std::string_view activation, const OptionalTensor& residual);
at::Tensor pack_weight_autograd(const at::Tensor& weight, int64_t groups);
at::Tensor linear_autograd(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                           const OptionalTensor& bias, std::string_view activation);
at::Tensor max_pool2d_autograd(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                               at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode);

}  // namespace semisparse::ops
