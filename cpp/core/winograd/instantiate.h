// SPDX-License-Identifier: Apache-2.0
// Makes one instruction set's WinogradKernels out of its Vec. Included once by each <isa>.cc.
#pragma once

#include "core/winograd/input_tiles.h"
#include "core/winograd/output_tiles.h"
#include "core/winograd/winograd.h"

#define SEMISPARSE_WINOGRAD(isa_)                                                                       \
  namespace semisparse {                                                                                \
  extern const WinogradKernels winograd_##isa_[2];                                                      \
  const WinogradKernels winograd_##isa_[2] = {                                                          \
      {#isa_, "winograd_f4_" #isa_, 4, InputTiles<isa_::Vec, 4>::run, OutputTiles<isa_::Vec, 4>::run},  \
      {#isa_, "winograd_f2_" #isa_, 2, InputTiles<isa_::Vec, 2>::run, OutputTiles<isa_::Vec, 2>::run}}; \
  }
