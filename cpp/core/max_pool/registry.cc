// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/isa.h"
#include "core/max_pool/kernels.h"

namespace semisparse {

#define SEMISPARSE_KERNELS(isa) extern const MaxPoolKernels max_pool_##isa;
#include "core/max_pool/kernels.inc"
#undef SEMISPARSE_KERNELS

const std::vector<const MaxPoolKernels*>& max_pool_kernels() {
  static const std::vector<const MaxPoolKernels*> all = {
#define SEMISPARSE_KERNELS(isa) &max_pool_##isa,
#include "core/max_pool/kernels.inc"
#undef SEMISPARSE_KERNELS
  };
  return all;
}

const MaxPoolKernels& selected_max_pool_kernels() {
  static const MaxPoolKernels& selected = choose_kernels(max_pool_kernels());
  return selected;
}

}  // namespace semisparse
