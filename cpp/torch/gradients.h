// SPDX-License-Identifier: Apache-2.0
// Which arguments of a call want a derivative.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace semisparse::ops {

inline bool needs_grad(const at::Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad();
}
inline bool needs_grad(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && needs_grad(*tensor);
}

// A tensor saved for the backward pass as the argument that it was.
inline std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

// Forward-mode derivatives (torch.func.jvp, dual numbers) would be lost without a word: the kernels know
// nothing of them and a missing tangent counts as zero. So they are refused.
inline bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}
inline bool has_tangent(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() && has_tangent(*tensor);
}

template <typename... Tensors>
void refuse_tangents(const char* op, const Tensors&... tensors) {
  TORCH_CHECK(!(has_tangent(tensors) || ...), op,
              " has no forward-mode derivative; use reverse mode (backward, torch.autograd.grad), or "
              "torch.nn.functional for this layer");
}

}  // namespace semisparse::ops
