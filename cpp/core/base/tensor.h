// SPDX-License-Identifier: Apache-2.0
// How tensors reach the core: a pointer and strides.
#pragma once

#include <cstdint>

namespace semisparse {

// Element strides in N, C, H, W order; any strides, also 0. E: float or Half.
template <class E>
struct BasicConstTensor4 {
  const E* data = nullptr;
  int64_t stride[4] = {0, 0, 0, 0};
};
using ConstTensor4 = BasicConstTensor4<float>;

}  // namespace semisparse
