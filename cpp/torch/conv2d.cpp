// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/conv2d.h"

#include "checks.h"
#include "core/base/windows.h"
#include "output_memory.h"
#include "parallel.h"
#include "prepared_weights.h"

namespace semisparse::ops {
namespace {

// A checked call: the geometry, and the tensors in the layout that the core wants, kept alive while it runs.
struct Call {
  Conv2dGeometry geometry;
  at::Tensor input, bias, fill, mask, residual, output;
  Activation activation;

  Call(const Conv2dArguments& arguments, const at::Tensor& weight, const SymShape4& weight_shape) {
    const SymShape4 shape = check_conv2d(arguments, weight, weight_shape);
    input = arguments.input;
    geometry.batch = input.size(0);
    geometry.in_h = input.size(2);
    geometry.in_w = input.size(3);
    geometry.weight.out_channels = weight_shape[0].expect_int();
    geometry.weight.in_channels_per_group = weight_shape[1].expect_int();
    geometry.weight.kernel_h = weight_shape[2].expect_int();
    geometry.weight.kernel_w = weight_shape[3].expect_int();
    geometry.weight.groups = arguments.groups;
    place_windows(geometry, arguments.stride, arguments.padding, arguments.dilation);
    geometry.validate();

    const auto given = [](const OptionalTensor& optional) {
      return optional.has_value() && optional->defined() ? optional->contiguous() : at::Tensor();
    };
    bias = floats(given(arguments.bias));
    fill = floats(given(arguments.fill));
    residual = given(arguments.residual);
    activation = parse_activation(arguments.activation);
    if (arguments.mask.has_value() && arguments.mask->defined()) mask = arguments.mask->contiguous();
    output = new_output({geometry.batch, geometry.out_channels(), geometry.out_h(), geometry.out_w()},
                        input.scalar_type());
  }

  // Calls f with the operands in the type of the input, and hands out the result.
  template <class F>
  at::Tensor run(F f) {
    if (input.scalar_type() == at::kHalf)
      f(operands<Half>());
    else
      f(operands<float>());
    return std::move(output);
  }

  // bool tensors hold bytes of value 0 or 1.
  const uint8_t* mask_bytes() const {
    return mask.defined() ? static_cast<const uint8_t*>(mask.const_data_ptr()) : nullptr;
  }

  // A copy only where it is needed.
  static at::Tensor floats(const at::Tensor& tensor) {
    return tensor.defined() ? tensor.to(at::kFloat) : tensor;
  }

 private:
  template <class E>
  static const E* data(const at::Tensor& tensor) {
    return tensor.defined() ? static_cast<const E*>(tensor.const_data_ptr()) : nullptr;
  }

  template <class E>
  BasicConv2dOperands<E> operands() {
    BasicConv2dOperands<E> o;
    o.input.data = data<E>(input);
    for (int i = 0; i < 4; ++i) o.input.stride[i] = input.stride(i);
    o.bias = data<float>(bias);
    o.fill = data<float>(fill);
    o.residual = data<E>(residual);
    o.output = static_cast<E*>(output.mutable_data_ptr());
    o.activation = activation;
    return o;
  }
};

}  // namespace

at::Tensor conv2d_cpu(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                      at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                      int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                      std::string_view activation, const OptionalTensor& residual) {
  Call call({input, bias, stride, padding, dilation, groups, mask, fill, activation, residual}, weight,
            check_plain_weight(weight, "semisparse::conv2d", element_type(input)));
  const at::Tensor contiguous = Call::floats(weight.contiguous());
  AtenParallel parallel;
  return call.run([&](const auto& operands) {
    semisparse::conv2d(call.geometry, contiguous.const_data_ptr<float>(), call.mask_bytes(), operands,
                       parallel);
  });
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
  return call.run([&](const auto& operands) {
    semisparse::conv2d(call.geometry, prepared->conv2d, contiguous.const_data_ptr<uint8_t>(),
                       contiguous.numel(), call.mask_bytes(), operands, parallel);
  });
}

}  // namespace semisparse::ops
