// SPDX-License-Identifier: Apache-2.0
#include "core/linear/linear.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "activation_backward.h"
#include "checks.h"
#include "gradients.h"
#include "output_memory.h"
#include "parallel.h"
#include "prepared_weights.h"

namespace semisparse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const auto& linear_op() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("semisparse::linear", "")
                             .typed<decltype(linear_autograd)>();
  return op;
}

// (OUT, IN)
at::Tensor unpack(const at::Tensor& packed, at::IntArrayRef weight_shape) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("semisparse::unpack_weight", "shaped")
                             .typed<decltype(unpack_weight_shaped_cpu)>();
  return op.call(packed, {weight_shape[0], weight_shape[1], 1, 1}, 1).squeeze(-1).squeeze(-1);
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& packed,
                            at::IntArrayRef weight_shape, const OptionalTensor& bias,
                            std::string_view activation_name) {
    at::Tensor output;
    {
      at::AutoDispatchBelowADInplaceOrView guard;
      output = linear_op().call(input, packed, weight_shape, bias, activation_name);
    }
    const Activation activation = parse_activation(activation_name);
    const bool again = !derivative_from_output(activation);
    auto& data = context->saved_data;
    data["weight_shape"] = weight_shape.vec();
    data["activation"] = std::string(activation_name);
    data["needs"] = std::vector<int64_t>{needs_grad(input), needs_grad(bias)};
    const auto keep = [](bool condition, const OptionalTensor& tensor) {
      return condition && tensor.has_value() ? *tensor : at::Tensor();
    };
    context->save_for_backward({keep(again, input), packed, keep(again, bias),
                                keep(!again && activation != Activation::none, output)});
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto& data = context->saved_data;
    const auto weight_shape = data["weight_shape"].toIntVector(), needs = data["needs"].toIntVector();
    const Activation activation = parse_activation(data["activation"].toStringRef());
    const auto saved = context->get_saved_variables();
    at::Tensor value = saved[3];
    if (!derivative_from_output(activation))
      value = linear_op().call(saved[0], saved[1], weight_shape, optional(saved[2]), "none");
    const at::Tensor grad_sum = activation_backward(activation, grads[0], value);
    variable_list result(5);
    if (needs[0]) result[0] = at::matmul(grad_sum, unpack(saved[1], weight_shape).to(grad_sum.scalar_type()));
    if (needs[1]) {
      std::vector<int64_t> rows(static_cast<size_t>(grad_sum.dim() - 1));
      std::iota(rows.begin(), rows.end(), 0);
      result[3] = rows.empty() ? grad_sum : grad_sum.sum(rows);
    }
    return result;
  }
};

}  // namespace

at::Tensor linear_cpu(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                      const OptionalTensor& bias, std::string_view activation) {
  check_linear({input, packed, weight_shape, bias, activation});
  if (input.scalar_type() == at::kHalf) {  // bound by the weights, which are float32: nothing to win
    const OptionalTensor floats =
        bias.has_value() && bias->defined() ? OptionalTensor(bias->to(at::kFloat)) : std::nullopt;
    return linear_cpu(input.to(at::kFloat), packed, weight_shape, floats, activation).to(at::kHalf);
  }
  const int64_t in_features = weight_shape[1];
  at::DimVector shape(input.sizes().begin(), input.sizes().end());
  shape.back() = weight_shape[0];
  at::Tensor output = new_output(shape, at::kFloat);

  // Rows of neighbouring features: a view where the strides allow it.
  int64_t rows = 1;
  for (const int64_t size : input.sizes().slice(0, input.dim() - 1)) rows *= size;
  at::Tensor matrix = input.reshape({rows, in_features});
  if (matrix.stride(1) != 1 && in_features > 1) matrix = matrix.contiguous();
  const at::Tensor contiguous_packed = packed.contiguous();
  const std::shared_ptr<PreparedWeights> prepared = prepared_weights(contiguous_packed);
  at::Tensor contiguous_bias;
  LinearOperands operands;
  operands.input = matrix.const_data_ptr<float>();
  operands.row_stride = matrix.stride(0);
  if (bias.has_value() && bias->defined()) {
    contiguous_bias = bias->contiguous();
    operands.bias = contiguous_bias.const_data_ptr<float>();
  }
  operands.output = output.mutable_data_ptr<float>();
  operands.activation = parse_activation(activation);
  AtenParallel parallel;
  semisparse::linear({rows, in_features, weight_shape[0]}, prepared->linear,
                     contiguous_packed.const_data_ptr<uint8_t>(), contiguous_packed.numel(), operands,
                     parallel);
  return output;
}

at::Tensor linear_meta(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                       const OptionalTensor& bias, std::string_view activation) {
  return at::empty_symint(check_linear({input, packed, weight_shape, bias, activation}), input.options());
}

at::Tensor linear_autograd(const at::Tensor& input, const at::Tensor& packed, at::IntArrayRef weight_shape,
                           const OptionalTensor& bias, std::string_view activation) {
  refuse_tangents("semisparse::linear", input, bias);
  if (at::GradMode::is_enabled() && (needs_grad(input) || needs_grad(bias)))
    return LinearFunction::apply(input, packed, weight_shape, bias, activation);
  at::AutoDispatchBelowADInplaceOrView guard;
  return linear_op().call(input, packed, weight_shape, bias, activation);
}

}  // namespace semisparse::ops
