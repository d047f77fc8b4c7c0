// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/isa.h"
#include "core/linear/kernels.h"

namespace semisparse {

#define SEMISPARSE_KERNELS(isa) extern const LinearKernels linear_##isa;
#include "core/linear/kernels.inc"
#undef SEMISPARSE_KERNELS

const std::vector<const LinearKernels*>& linear_kernels() {
  static const std::vector<const LinearKernels*> all = {
#define SEMISPARSE_KERNELS(isa) &linear_##isa,
#include "core/linear/kernels.inc"
#undef SEMISPARSE_KERNELS
  };
  return all;
}

const LinearKernels& selected_linear_kernels() {
  static const LinearKernels& selected = choose_kernels(linear_kernels());
  return selected;
}

}  // namespace semisparse
