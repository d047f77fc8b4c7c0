// SPDX-License-Identifier: Apache-2.0
// Makes one instruction set's DepthwiseKernels out of its Vec. Included once by each <isa>.cc.
#pragma once

#include "core/depthwise/kernels.h"
#include "core/depthwise/plane.h"

#define SEMISPARSE_DEPTHWISE(isa_)                                                                           \
  namespace semisparse {                                                                                     \
  extern const DepthwiseKernels depthwise_##isa_;                                                            \
  const DepthwiseKernels depthwise_##isa_ = {#isa_, isa_::Vec::lanes, Depthwise<isa_::Vec>::copy,            \
                                             Depthwise<isa_::Vec>::plane, Depthwise<isa_::Vec>::in_place()}; \
  }
