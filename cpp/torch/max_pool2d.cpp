// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/max_pool2d_with_indices.h>
#include <ATen/ops/max_pool2d_with_indices_backward.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>

#include "checks.h"
#include "core/base/windows.h"
#include "core/max_pool/max_pool.h"
#include "gradients.h"
#include "output_memory.h"
#include "parallel.h"

namespace semisparse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor call(const MaxPool2dArguments& a) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("semisparse::max_pool2d", "")
                             .typed<decltype(max_pool2d_cpu)>();
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(a.input, a.kernel_size, a.stride, a.padding, a.dilation, a.ceil_mode);
}

// Which pixel was the largest is found again, by PyTorch, where a gradient is asked for: forward passes alone
// pay nothing for it.
struct MaxPool2dFunction : torch::autograd::Function<MaxPool2dFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, at::IntArrayRef kernel_size,
                            at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                            bool ceil_mode) {
    auto& data = context->saved_data;
    data["kernel_size"] = kernel_size.vec();
    data["stride"] = stride.vec();
    data["padding"] = padding.vec();
    data["dilation"] = dilation.vec();
    data["ceil_mode"] = ceil_mode;
    context->save_for_backward({input});
    return call({input, kernel_size, stride, padding, dilation, ceil_mode});
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto& data = context->saved_data;
    const auto kernel_size = data["kernel_size"].toIntVector(), stride = data["stride"].toIntVector(),
               padding = data["padding"].toIntVector(), dilation = data["dilation"].toIntVector();
    const bool ceil_mode = data["ceil_mode"].toBool();
    const at::Tensor input = context->get_saved_variables()[0];
    at::Tensor grad = grads[0];
    at::Tensor indices = std::get<1>(
        at::max_pool2d_with_indices(input.detach(), kernel_size, stride, padding, dilation, ceil_mode));
    if (dilation[0] > 1 || dilation[1] > 1) {
      // A dilated window may have all its taps in the padding. PyTorch gives it an index outside the image,
      // and its backward pass would write there. Nothing flows back through such a window.
      const at::Tensor inside = indices.lt(input.sym_size(2) * input.sym_size(3));
      grad = at::where(inside, grad, 0);
      indices = at::where(inside, indices, 0);
    }
    variable_list result(6);
    result[0] = at::max_pool2d_with_indices_backward(grad, input, kernel_size, stride, padding, dilation,
                                                     ceil_mode, indices);
    return result;
  }
};

}  // namespace

at::Tensor max_pool2d_cpu(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                          at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode) {
  const SymShape4 shape = check_max_pool2d({input, kernel_size, stride, padding, dilation, ceil_mode});
  if (input.scalar_type() == at::kHalf)  // exact: no value is made that was not there
    return max_pool2d_cpu(input.to(at::kFloat), kernel_size, stride, padding, dilation, ceil_mode)
        .to(at::kHalf);
  const at::IntArrayRef steps = stride.empty() ? kernel_size : stride;
  MaxPool2dGeometry geometry;
  geometry.batch = input.size(0);
  geometry.channels = input.size(1);
  geometry.in_h = input.size(2);
  geometry.in_w = input.size(3);
  geometry.kernel_h = kernel_size[0];
  geometry.kernel_w = kernel_size[1];
  place_windows(geometry, steps, padding, dilation);
  geometry.ceil_mode = ceil_mode;
  geometry.validate();
  ConstTensor4 image{input.const_data_ptr<float>(), {}};
  for (int i = 0; i < 4; ++i) image.stride[i] = input.stride(i);
  at::Tensor output =
      new_output({geometry.batch, geometry.channels, geometry.out_h(), geometry.out_w()}, at::kFloat);
  TORCH_INTERNAL_ASSERT(shape[2] == output.size(2) && shape[3] == output.size(3));
  AtenParallel parallel;
  semisparse::max_pool2d(geometry, image, output.mutable_data_ptr<float>(), parallel);
  return output;
}

at::Tensor max_pool2d_meta(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                           at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode) {
  const SymShape4 shape = check_max_pool2d({input, kernel_size, stride, padding, dilation, ceil_mode});
  return at::empty_symint(shape, input.options().memory_format(at::MemoryFormat::Contiguous));
}

at::Tensor max_pool2d_autograd(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                               at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode) {
  refuse_tangents("semisparse::max_pool2d", input);
  if (at::GradMode::is_enabled() && input.requires_grad())
    return MaxPool2dFunction::apply(input, kernel_size, stride, padding, dilation, ceil_mode);
  return call({input, kernel_size, stride, padding, dilation, ceil_mode});
}

}  // namespace semisparse::ops
