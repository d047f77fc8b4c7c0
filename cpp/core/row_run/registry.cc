// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <string>

#include "core/base/error.h"
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
  static const RowRunKernels* const selected = []() -> const RowRunKernels* {
    const char* wanted = std::getenv("SEMISPARSE_ISA");
    std::string known;
    for (const RowRunKernels* kernels : row_run_kernels()) {
      if (!kernels->supported()) continue;
      if (wanted == nullptr || *wanted == '\0' || std::string(wanted) == kernels->isa) return kernels;
      known += known.empty() ? "" : ", ";
      known += kernels->isa;
    }
    fail("SEMISPARSE_ISA is '", wanted, "', but this machine has kernels for: ", known,
         ". Unset it or choose one of these.");
  }();
  return *selected;
}

std::string kernel_name() {
  return selected_kernels().name;
}

}  // namespace semisparse
