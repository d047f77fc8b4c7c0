// SPDX-License-Identifier: Apache-2.0
// Makes one instruction set's WinogradKernels out of its Vec. Included once by each <isa>.cc.
#pragma once

#include <iterator>

#include "core/winograd/input_tiles.h"
#include "core/winograd/output_tiles.h"
#include "core/winograd/winograd.h"

namespace semisparse {

template <class S, size_t At>
constexpr WinogradKernels winograd_instance(const char* isa, const char* name) {
  constexpr WinogradSize size = kWinogradSizes[At];
  return {isa, name, size, InputTiles<S, size.tile, size.taps>::run,
          OutputTiles<S, size.tile, size.taps>::run};
}

}  // namespace semisparse

#define SEMISPARSE_WINOGRAD(isa_)                                          \
  namespace semisparse {                                                   \
  extern const WinogradKernels winograd_##isa_[std::size(kWinogradSizes)]; \
  const WinogradKernels winograd_##isa_[std::size(kWinogradSizes)] = {     \
      winograd_instance<isa_::Vec, 0>(#isa_, "winograd_f43_" #isa_),       \
      winograd_instance<isa_::Vec, 1>(#isa_, "winograd_f23_" #isa_),       \
      winograd_instance<isa_::Vec, 2>(#isa_, "winograd_f44_" #isa_)};      \
  }
