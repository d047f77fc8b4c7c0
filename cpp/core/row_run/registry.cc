// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>

#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"
#include "core/row_run/row_run.h"

namespace semisparse {

#define SEMISPARSE_KERNELS(isa) extern const RowRunKernels row_run_##isa;
#define SEMISPARSE_HALF_KERNELS(isa) extern const HalfKernels row_run_##isa;
#include "core/row_run/kernels.inc"
#undef SEMISPARSE_KERNELS
#undef SEMISPARSE_HALF_KERNELS

const std::vector<const RowRunKernels*>& row_run_kernels() {
  static const std::vector<const RowRunKernels*> all = {
#define SEMISPARSE_KERNELS(isa) &row_run_##isa,
#include "core/row_run/kernels.inc"
#undef SEMISPARSE_KERNELS
  };
  return all;
}

const std::vector<const HalfKernels*>& half_kernels() {
  static const std::vector<const HalfKernels*> all = {
#define SEMISPARSE_HALF_KERNELS(isa) &row_run_##isa,
#include "core/row_run/kernels.inc"
#undef SEMISPARSE_HALF_KERNELS
  };
  return all;
}

const RowRunKernels& selected_kernels() {
  static const RowRunKernels& selected = []() -> const RowRunKernels& {
    const RowRunKernels& best = choose_kernels(row_run_kernels());
#if defined(__aarch64__)
    if (&best == &row_run_neon && cpu_info().in_order) return row_run_neon_in_order;
#endif
    return best;
  }();
  return selected;
}

const HalfKernels* selected_half_kernels() {
  static const HalfKernels* const selected = []() -> const HalfKernels* {
    const char* const wanted = std::getenv("SEMISPARSE_ISA");
    const bool any = wanted == nullptr || *wanted == '\0';
    for (const HalfKernels* kernels : half_kernels())
      if (isa_supported(kernels->isa) && (any || std::string(kernels->isa) == wanted)) return kernels;
    return nullptr;
  }();
  return selected;
}

int64_t panel_rows_in_cache(const ColumnPlan& plan, size_t element_bytes) {
  const int64_t row_bytes = static_cast<int64_t>(element_bytes) * plan.lanes * std::max(plan.widest, 1);
  return static_cast<int64_t>(cpu_info().l1_bytes) * 5 / 8 / row_bytes;
}

std::string kernel_name() {
  return selected_kernels().name;
}

}  // namespace semisparse
