// SPDX-License-Identifier: Apache-2.0
#include "core/arrays/kernels.h"
#include "core/cpu/isa.h"

namespace semisparse {

#define SEMISPARSE_KERNELS(isa) extern const ArrayKernels arrays_##isa;
#include "core/arrays/kernels.inc"
#undef SEMISPARSE_KERNELS

const std::vector<const ArrayKernels*>& array_kernels() {
  static const std::vector<const ArrayKernels*> all = {
#define SEMISPARSE_KERNELS(isa) &arrays_##isa,
#include "core/arrays/kernels.inc"
#undef SEMISPARSE_KERNELS
  };
  return all;
}

const ArrayKernels& selected_array_kernels() {
  static const ArrayKernels& selected = choose_kernels(array_kernels());
  return selected;
}

}  // namespace semisparse
