// SPDX-License-Identifier: Apache-2.0
// The operator library `semisparse` as the PyTorch dispatcher sees it. Nothing here needs Python: a C++
// program may dlopen this library and call the operators or run an AOTInductor package that holds them.
#include <torch/library.h>
#include <torch/version.h>

#include "ops.h"

// Read from the file by semisparse/_library.py, which refuses a library that was built for another torch: C++
// symbols that no longer match would be found missing in the best case only.
extern "C" __attribute__((visibility("default"), used)) const char semisparse_built_for_torch[] =
    "semisparse built for torch " TORCH_VERSION;

namespace semisparse::ops {
namespace {

void other_device(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  for (const c10::IValue& argument : *stack) {
    if (!argument.isTensor() || !argument.toTensor().defined()) continue;
    const at::Tensor& tensor = argument.toTensor();
    TORCH_CHECK(tensor.device().is_cpu() && tensor.layout() == c10::kStrided, op.schema().name(),
                " runs on plain (strided) CPU tensors, but got a ", tensor.layout(), " tensor on ",
                tensor.device(), ". Convert it first with .cpu() or .to_dense()");
  }
  TORCH_CHECK(false, op.schema().name(), " runs on plain (strided) CPU tensors only");
}

}  // namespace
}  // namespace semisparse::ops

TORCH_LIBRARY(semisparse, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  // clang-format off
  m.def(
      "conv2d(Tensor input, Tensor weight, Tensor? bias=None, int[2] stride=1, int[2] padding=0, "
      "int[2] dilation=1, int groups=1, *, Tensor? mask=None, Tensor? fill=None, str activation=\"none\", "
      "Tensor? residual=None) -> Tensor",
      tags);
  m.def(
      "conv2d.packed(Tensor input, Tensor packed, int[4] weight_shape, Tensor? bias=None, int[2] stride=1, "
      "int[2] padding=0, int[2] dilation=1, int groups=1, *, Tensor? mask=None, Tensor? fill=None, "
      "str activation=\"none\", Tensor? residual=None) -> Tensor",
      tags);
  // clang-format on
  m.def("pack_weight(Tensor weight, int groups=1) -> Tensor", tags);
  m.def("unpack_weight(Tensor packed) -> Tensor", tags);
  // The same with the shape known beforehand (and checked), so that graphs need no data-dependent sizes.
  m.def("unpack_weight.shaped(Tensor packed, int[4] weight_shape, int groups=1) -> Tensor", tags);
  // `packed` from a weight of shape (OUT, IN), or (OUT, IN, 1, 1).
  m.def(
      "linear(Tensor input, Tensor packed, int[2] weight_shape, Tensor? bias=None, *, "
      "str activation=\"none\") -> Tensor",
      tags);
  // torch.nn.functional.max_pool2d without indices.
  m.def(
      "max_pool2d(Tensor input, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, "
      "bool ceil_mode=False) -> Tensor",
      tags);
  // Which algorithm a packed convolution runs; see semisparse/algorithms.py.
  m.def("force_algorithm(str name) -> str", TORCH_FN(semisparse::ops::force_algorithm));
  m.def("prefer_algorithm(Tensor packed, int[2] input_size, str name) -> ()",
        TORCH_FN(semisparse::ops::prefer_algorithm));
  m.def(
      "chosen_algorithm(Tensor packed, int[2] input_size, int[2] stride=1, int[2] padding=0, int[2] "
      "dilation=1, "
      "*, Tensor? mask=None, bool half=False) -> str",
      TORCH_FN(semisparse::ops::chosen_algorithm));
}

TORCH_LIBRARY_IMPL(semisparse, CPU, m) {
  m.impl("conv2d", TORCH_FN(semisparse::ops::conv2d_cpu));
  m.impl("conv2d.packed", TORCH_FN(semisparse::ops::conv2d_packed_cpu));
  m.impl("pack_weight", TORCH_FN(semisparse::ops::pack_weight_cpu));
  m.impl("unpack_weight", TORCH_FN(semisparse::ops::unpack_weight_cpu));
  m.impl("unpack_weight.shaped", TORCH_FN(semisparse::ops::unpack_weight_shaped_cpu));
  m.impl("linear", TORCH_FN(semisparse::ops::linear_cpu));
  m.impl("max_pool2d", TORCH_FN(semisparse::ops::max_pool2d_cpu));
}

// pack_weight and unpack_weight have sizes that depend on data: their fake kernels are in
// semisparse/_library.py.
TORCH_LIBRARY_IMPL(semisparse, Meta, m) {
  m.impl("conv2d", TORCH_FN(semisparse::ops::conv2d_meta));
  m.impl("conv2d.packed", TORCH_FN(semisparse::ops::conv2d_packed_meta));
  m.impl("unpack_weight.shaped", TORCH_FN(semisparse::ops::unpack_weight_shaped_meta));
  m.impl("linear", TORCH_FN(semisparse::ops::linear_meta));
  m.impl("max_pool2d", TORCH_FN(semisparse::ops::max_pool2d_meta));
}

TORCH_LIBRARY_IMPL(semisparse, Autograd, m) {
  m.impl("conv2d", TORCH_FN(semisparse::ops::conv2d_autograd));
  m.impl("conv2d.packed", TORCH_FN(semisparse::ops::conv2d_packed_autograd));
  m.impl("pack_weight", TORCH_FN(semisparse::ops::pack_weight_autograd));
  m.impl("linear", TORCH_FN(semisparse::ops::linear_autograd));
  m.impl("max_pool2d", TORCH_FN(semisparse::ops::max_pool2d_autograd));
}

// A tensor elsewhere gets words instead of the dispatcher's list of registered backends.
#define SEMISPARSE_OTHER_DEVICE(key)                                                             \
  TORCH_LIBRARY_IMPL(semisparse, key, m) {                                                       \
    for (const char* name : {"conv2d", "conv2d.packed", "pack_weight", "unpack_weight",          \
                             "unpack_weight.shaped", "linear", "max_pool2d"})                    \
      m.impl(name, torch::CppFunction::makeFromBoxedFunction<&semisparse::ops::other_device>()); \
  }
SEMISPARSE_OTHER_DEVICE(CUDA)
SEMISPARSE_OTHER_DEVICE(MPS)
SEMISPARSE_OTHER_DEVICE(XPU)
SEMISPARSE_OTHER_DEVICE(PrivateUse1)
SEMISPARSE_OTHER_DEVICE(SparseCPU)
SEMISPARSE_OTHER_DEVICE(SparseCsrCPU)
SEMISPARSE_OTHER_DEVICE(MkldnnCPU)
#undef SEMISPARSE_OTHER_DEVICE
