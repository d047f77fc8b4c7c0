// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/conv2d.h"

#include <ATen/ops/empty.h>

#include "checks.h"
#include "parallel.h"
#include "prepared_weights.h"

namespace semisparse::ops {
namespace {

// A checked call: the geometry, and the tensors in the layout that the core wants, kept alive while it runs.
struct Call {
  Conv2dGeometry geometry;
  at::Tensor bias, fill, mask, residual, output;
  Conv2dOperands operands;

  Call(const Conv2dArguments& arguments, const at::Tensor& weight, const SymShape4& weight_shape) {
    const SymShape4 shape = check_conv2d(arguments, weight, weight_shape);
    const at::Tensor& input = arguments.input;
    geometry.batch = input.size(0);
    geometry.in_h = input.size(2);
    geometry.in_w = input.size(3);
    geometry.weight.out_channels = weight_shape[0].expect_int();
    geometry.weight.in_channels_per_group = weight_shape[1].expect_int();
    geometry.weight.kernel_h = weight_shape[2].expect_int();
    geometry.weight.kernel_w = weight_shape[3].expect_int();
    geometry.weight.groups = arguments.groups;
    geometry.stride_h = arguments.stride[0];
    geometry.stride_w = arguments.stride[1];
    geometry.pad_h = arguments.padding[0];
    geometry.pad_w = arguments.padding[1];
    geometry.dilation_h = arguments.dilation[0];
    geometry.dilation_w = arguments.dilation[1];
    geometry.validate();

    operands.input.data = input.const_data_ptr<float>();
    for (int i = 0; i < 4; ++i) operands.input.stride[i] = input.stride(i);
    operands.bias = floats(arguments.bias, bias);
    operands.fill = floats(arguments.fill, fill);
    operands.residual = floats(arguments.residual, residual);
    operands.activation = parse_activation(arguments.activation);
    if (arguments.mask.has_value() && arguments.mask->defined()) mask = arguments.mask->contiguous();
    output =
        at::empty({geometry.batch, geometry.out_channels(), geometry.out_h(), geometry.out_w()}, at::kFloat);
    operands.output = output.mutable_data_ptr<float>();
  }

  // bool tensors hold bytes of value 0 or 1.
  const uint8_t* mask_bytes() const {
    return mask.defined() ? static_cast<const uint8_t*>(mask.const_data_ptr()) : nullptr;
  }

 private:
  static const float* floats(const OptionalTensor& optional, at::Tensor& owner) {
    if (!optional.has_value() || !optional->defined()) return nullptr;
    owner = optional->contiguous();
    return owner.const_data_ptr<float>();
  }
};

}  // namespace

at::Tensor conv2d_cpu(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                      at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                      int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                      std::string_view activation, const OptionalTensor& residual) {
  Call call({input, bias, stride, padding, dilation, groups, mask, fill, activation, residual}, weight,
            check_plain_weight(weight, "semisparse::conv2d"));
  const at::Tensor contiguous = weight.contiguous();
  AtenParallel parallel;
  semisparse::conv2d(call.geometry, contiguous.const_data_ptr<float>(), call.mask_bytes(), call.operands,
                     parallel);
  return std::move(call.output);
}

at::Tensor conv2d_packed_cpu(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                             const OptionalTensor& bias, at::IntArrayRef stride, at::IntArrayRef padding,
                             at::IntArrayRef dilation, int64_t groups, const OptionalTensor& mask,
                             const OptionalTensor& fill, std::string_view activation,
                             const OptionalTensor& residual) {
  Call call({input, bias, stride, padding, dilation, groups, mask, fill, activation, residual}, packed,
            check_packed_weight(packed, weight_shape, "semisparse::conv2d.packed"));
  const at::Tensor contiguous = packed.contiguous();
  const std::shared_ptr<PreparedWeights> prepared = prepared_weights(contiguous);
  AtenParallel parallel;
  semisparse::conv2d(call.geometry, prepared->conv2d, contiguous.const_data_ptr<uint8_t>(),
                     contiguous.numel(), call.mask_bytes(), call.operands, parallel);
  return std::move(call.output);
}

}  // namespace semisparse::ops
