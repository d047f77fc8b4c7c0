// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>

#include "checks.h"

namespace semisparse::ops {
namespace {

at::Tensor output_of(const Conv2dArguments& arguments, const at::Tensor& weight,
                     const SymShape4& weight_shape) {
  const SymShape4 shape = check_conv2d(arguments, weight, weight_shape);
  return at::empty_symint(shape, arguments.input.options().memory_format(at::MemoryFormat::Contiguous));
}

}  // namespace

at::Tensor conv2d_meta(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                       int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                       std::string_view activation, const OptionalTensor& residual) {
  return output_of({input, bias, stride, padding, dilation, groups, mask, fill, activation, residual}, weight,
                   check_plain_weight(weight, "semisparse::conv2d", element_type(input)));
}

at::Tensor conv2d_packed_meta(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                              const OptionalTensor& bias, at::IntArrayRef stride, at::IntArrayRef padding,
                              at::IntArrayRef dilation, int64_t groups, const OptionalTensor& mask,
                              const OptionalTensor& fill, std::string_view activation,
                              const OptionalTensor& residual) {
  return output_of({input, bias, stride, padding, dilation, groups, mask, fill, activation, residual}, packed,
                   check_packed_weight(packed, weight_shape, "semisparse::conv2d.packed"));
}

at::Tensor unpack_weight_shaped_meta(const at::Tensor& packed, at::IntArrayRef weight_shape,
                                     int64_t /*groups*/) {
  check_packed_weight(packed, weight_shape, "semisparse::unpack_weight.shaped");
  return at::empty(weight_shape, packed.options().dtype(at::kFloat));
}

}  // namespace semisparse::ops
