// SPDX-License-Identifier: Apache-2.0
// The kernel sets of a family: one for each instruction set, of which one is selected. Dispatch, C++ tests
// and benchmarks follow this list, so no kernel can exist untested. (row_run has sets of its own besides.)
#pragma once

#include <vector>

#include "core/cpu/isa.h"

// f(isa, more...) for every instruction set that sources.txt compiles a family for, best first.
#if defined(__x86_64__)
#define SEMISPARSE_EACH_ISA(f, ...) f(avx512, __VA_ARGS__) f(avx2, __VA_ARGS__) f(scalar, __VA_ARGS__)
#elif defined(__aarch64__)
#define SEMISPARSE_EACH_ISA(f, ...) f(neon, __VA_ARGS__) f(scalar, __VA_ARGS__)
#else
#define SEMISPARSE_EACH_ISA(f, ...) f(scalar, __VA_ARGS__)
#endif

#define SEMISPARSE_KERNEL_SET(isa, Kernels, family) extern const Kernels family##_##isa;
#define SEMISPARSE_KERNEL_SET_ADDRESS(isa, Kernels, family) &family##_##isa,

// Defines all(), every set `family`_<isa>, best first, and selected(), that of the selected instruction set.
#define SEMISPARSE_REGISTRY(Kernels, family, all, selected)                   \
  SEMISPARSE_EACH_ISA(SEMISPARSE_KERNEL_SET, Kernels, family)                 \
  const std::vector<const Kernels*>& all() {                                  \
    static const std::vector<const Kernels*> sets = {                         \
        SEMISPARSE_EACH_ISA(SEMISPARSE_KERNEL_SET_ADDRESS, Kernels, family)}; \
    return sets;                                                              \
  }                                                                           \
  const Kernels& selected() {                                                 \
    static const Kernels& chosen = choose_kernels(all());                     \
    return chosen;                                                            \
  }
