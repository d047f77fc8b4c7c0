// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/isa.h"
#include "core/depthwise/kernels.h"

namespace semisparse {

#define SEMISPARSE_KERNELS(isa) extern const DepthwiseKernels depthwise_##isa;
#include "core/depthwise/kernels.inc"
#undef SEMISPARSE_KERNELS

const std::vector<const DepthwiseKernels*>& depthwise_kernels() {
  static const std::vector<const DepthwiseKernels*> all = {
#define SEMISPARSE_KERNELS(isa) &depthwise_##isa,
#include "core/depthwise/kernels.inc"
#undef SEMISPARSE_KERNELS
  };
  return all;
}

const DepthwiseKernels& selected_depthwise_kernels() {
  static const DepthwiseKernels& selected = choose_kernels(depthwise_kernels());
  return selected;
}

}  // namespace semisparse
