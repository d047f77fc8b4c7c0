// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/cpu/cpu.h"
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

int64_t panel_rows_in_cache(const ColumnPlan& plan) {
  const int64_t row_bytes = int64_t{4} * plan.lanes * std::max(plan.widest, 1);
  return static_cast<int64_t>(cpu_info().l1_bytes) * 5 / 8 / row_bytes;
}

std::string kernel_name() {
  return selected_kernels().name;
}

}  // namespace semisparse
