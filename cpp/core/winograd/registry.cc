// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/isa.h"
#include "core/winograd/winograd.h"

namespace semisparse {

#define SEMISPARSE_KERNELS(isa) extern const WinogradKernels winograd_##isa[2];
#include "core/winograd/kernels.inc"
#undef SEMISPARSE_KERNELS

namespace {

std::vector<const WinogradKernels*> all_kernels(int at) {
  return {
#define SEMISPARSE_KERNELS(isa) &winograd_##isa[at],
#include "core/winograd/kernels.inc"
#undef SEMISPARSE_KERNELS
  };
}

}  // namespace

const std::vector<const WinogradKernels*>& winograd_kernels(int tile) {
  static const std::vector<const WinogradKernels*> four = all_kernels(0), two = all_kernels(1);
  return tile == 4 ? four : two;
}

const WinogradKernels& selected_winograd(int tile) {
  static const WinogradKernels& four = choose_kernels(winograd_kernels(4));
  static const WinogradKernels& two = choose_kernels(winograd_kernels(2));
  return tile == 4 ? four : two;
}

}  // namespace semisparse
