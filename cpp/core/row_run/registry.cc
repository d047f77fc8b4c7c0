// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/isa.h"
#include "core/row_run/row_run.h"

namespace semisparse {

#define SEMISPARSE_KERNELS(isa) extern const RowRunKernels row_run_##isa;
#include "core/row_run/kernels.inc"
#undef SEMISPARSE_KERNELS

const std::vector<const RowRunKernels*>& row_run_kernels() {
  static const std::vector<const RowRunKernels*> all = {
#define SEMISPARSE_KERNELS(isa) &row_run_##isa,
#include "core/row_run/kernels.inc"
#undef SEMISPARSE_KERNELS
  };
  return all;
}

const RowRunKernels& selected_kernels() {
  static const RowRunKernels& selected = choose_kernels(row_run_kernels());
  return selected;
}

std::string kernel_name() {
  return selected_kernels().name;
}

}  // namespace semisparse
