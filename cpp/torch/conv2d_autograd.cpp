// SPDX-License-Identifier: Apache-2.0
// Backward pass of both conv2d overloads, through the dense masked reference. In C++ rather than Python
// because every call outside inference mode comes through here, and because C++ programs train too.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "activation_backward.h"
#include "core/conv2d/conv2d.h"
#include "gradients.h"
#include "ops.h"

namespace semisparse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const auto& conv2d_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("semisparse::conv2d", "")
                             .typed<decltype(conv2d_autograd)>();
  return op;
}

const auto& conv2d_packed_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("semisparse::conv2d", "packed")
                             .typed<decltype(conv2d_packed_autograd)>();
  return op;
}

at::Tensor unpack(const at::Tensor& packed, at::IntArrayRef weight_shape, int64_t groups) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("semisparse::unpack_weight", "shaped")
                             .typed<decltype(unpack_weight_shaped_cpu)>();
  return op.call(packed, weight_shape, groups);
}

// What the backward pass needs besides tensors. `weight_shape` is empty for the overload with plain weights.
struct Settings {
  std::vector<int64_t> weight_shape, stride, padding, dilation;
  int64_t groups;
  std::string activation;

  bool packed() const { return !weight_shape.empty(); }

  at::Tensor call(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                  const OptionalTensor& mask, const OptionalTensor& fill, std::string_view with_activation,
                  const OptionalTensor& residual) const {
    if (packed())
      return conv2d_packed_op().call(input, weight, weight_shape, bias, stride, padding, dilation, groups,
                                     mask, fill, with_activation, residual);
    return conv2d_op().call(input, weight, bias, stride, padding, dilation, groups, mask, fill,
                            with_activation, residual);
  }

  void save(AutogradContext* context) const {
    context->saved_data["weight_shape"] = weight_shape;
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    context->saved_data["dilation"] = dilation;
    context->saved_data["groups"] = groups;
    context->saved_data["activation"] = activation;
  }

  static Settings restore(AutogradContext* context) {
    auto& data = context->saved_data;
    return {
        data["weight_shape"].toIntVector(), data["stride"].toIntVector(), data["padding"].toIntVector(),
        data["dilation"].toIntVector(),     data["groups"].toInt(),       data["activation"].toStringRef()};
  }
};

struct Conv2dFunction : torch::autograd::Function<Conv2dFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight,
                            const OptionalTensor& bias, const OptionalTensor& mask,
                            const OptionalTensor& fill, const OptionalTensor& residual,
                            const Settings& settings) {
    at::Tensor output;
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      output = settings.call(input, weight, bias, mask, fill, settings.activation, residual);
    }
    const Activation activation = parse_activation(settings.activation);
    const bool again = !derivative_from_output(activation);
    const bool weight_grad = !settings.packed() && needs_grad(weight);
    const auto keep = [](bool condition, const OptionalTensor& tensor) {
      return condition && tensor.has_value() ? *tensor : at::Tensor();
    };
    settings.save(context);
    context->saved_data["needs"] = std::vector<int64_t>{needs_grad(input), weight_grad, needs_grad(bias),
                                                        needs_grad(fill), needs_grad(residual)};
    context->save_for_backward({keep(again || weight_grad || needs_grad(input), input),
                                keep(again || weight_grad || needs_grad(input), weight), keep(again, bias),
                                keep(true, mask), keep(again, fill), keep(again, residual),
                                keep(!again && activation != Activation::none, output)});
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const Settings settings = Settings::restore(context);
    const Activation activation = parse_activation(settings.activation);
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &mask = saved[3];
    const std::vector<int64_t> needs = context->saved_data["needs"].toIntVector();

    at::Tensor value = saved[6];
    if (!derivative_from_output(activation))
      value = settings.call(input, weight, optional(saved[2]), optional(mask), optional(saved[4]), "none",
                            optional(saved[5]));
    const at::Tensor grad_sum = activation_backward(activation, grads[0], value);
    // `where` and not a product: a skipped pixel passes nothing on, also where its gradient is infinite or
    // NaN.
    const at::Tensor grad_conv = mask.defined() ? at::where(mask, grad_sum, 0) : grad_sum;

    variable_list result(7);
    if (needs[0] || needs[1]) {
      const at::Tensor dense =
          settings.packed() ? unpack(weight, settings.weight_shape, settings.groups).to(input.scalar_type())
                            : weight;
      std::tie(result[0], result[1], std::ignore) =
          at::convolution_backward(grad_conv, input, dense, /*bias_sizes=*/std::nullopt, settings.stride,
                                   settings.padding, settings.dilation,
                                   /*transposed=*/false, /*output_padding=*/{0, 0}, settings.groups,
                                   {needs[0] != 0, needs[1] != 0, false});
    }
    if (needs[2]) result[2] = grad_conv.sum({0, 2, 3});
    if (needs[3])
      result[4] = mask.defined() ? at::where(mask, 0, grad_sum).sum({0, 2, 3})
                                 : at::zeros_like(grad_sum.sum({0, 2, 3}));
    if (needs[4]) result[5] = grad_sum;
    return result;
  }
};

}  // namespace

at::Tensor conv2d_autograd(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
                           at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                           int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                           std::string_view activation, const OptionalTensor& residual) {
  refuse_tangents("semisparse::conv2d", input, weight, bias, fill, residual);
  if (at::GradMode::is_enabled() && (needs_grad(input) || needs_grad(weight) || needs_grad(bias) ||
                                     needs_grad(fill) || needs_grad(residual))) {
    const Settings settings{{}, stride.vec(), padding.vec(), dilation.vec(), groups, std::string(activation)};
    return Conv2dFunction::apply(input, weight, bias, mask, fill, residual, settings);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return conv2d_op().call(input, weight, bias, stride, padding, dilation, groups, mask, fill, activation,
                          residual);
}

at::Tensor conv2d_packed_autograd(const at::Tensor& input, const at::Tensor& packed,
                                  at::IntArrayRef weight_shape, const OptionalTensor& bias,
                                  at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                                  int64_t groups, const OptionalTensor& mask, const OptionalTensor& fill,
                                  std::string_view activation, const OptionalTensor& residual) {
  refuse_tangents("semisparse::conv2d", input, bias, fill, residual);
  if (at::GradMode::is_enabled() &&
      (needs_grad(input) || needs_grad(bias) || needs_grad(fill) || needs_grad(residual))) {
    const Settings settings{weight_shape.vec(), stride.vec(), padding.vec(),
                            dilation.vec(),     groups,       std::string(activation)};
    return Conv2dFunction::apply(input, packed, bias, mask, fill, residual, settings);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return conv2d_packed_op().call(input, packed, weight_shape, bias, stride, padding, dilation, groups, mask,
                                 fill, activation, residual);
}

}  // namespace semisparse::ops
