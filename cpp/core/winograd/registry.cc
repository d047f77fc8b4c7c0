// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iterator>

#include "core/base/error.h"
#include "core/cpu/registry.h"
#include "core/winograd/winograd.h"

namespace semisparse {

#define SEMISPARSE_SIZES(isa, ...) extern const WinogradKernels winograd_##isa[std::size(kWinogradSizes)];
SEMISPARSE_EACH_ISA(SEMISPARSE_SIZES, )
#undef SEMISPARSE_SIZES

namespace {

// Of one size: every kernel set, and the one of the selected instruction set.
struct Sets {
  std::vector<const WinogradKernels*> all;
  const WinogradKernels* selected;
};

const Sets& sets(WinogradSize size) {
  static const std::vector<Sets> by_size = [] {
    std::vector<Sets> result;
    for (size_t at = 0; at < std::size(kWinogradSizes); ++at) {
      Sets s;
#define SEMISPARSE_SIZE(isa, ...) &winograd_##isa[at],
      s.all = {SEMISPARSE_EACH_ISA(SEMISPARSE_SIZE, )};
#undef SEMISPARSE_SIZE
      s.selected = &choose_kernels(s.all);
      result.push_back(std::move(s));
    }
    return result;
  }();
  const auto at = std::find(std::begin(kWinogradSizes), std::end(kWinogradSizes), size);
  check(at != std::end(kWinogradSizes), "there are no kernels for Winograd F(", size.tile, ",", size.taps,
        ").");
  return by_size[static_cast<size_t>(at - std::begin(kWinogradSizes))];
}

}  // namespace

const std::vector<const WinogradKernels*>& winograd_kernels(WinogradSize size) {
  return sets(size).all;
}

const WinogradKernels& selected_winograd(WinogradSize size) {
  return *sets(size).selected;
}

}  // namespace semisparse
