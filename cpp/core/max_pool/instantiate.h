// SPDX-License-Identifier: Apache-2.0
// Makes one instruction set's MaxPoolKernels out of its Vec. Included once by each <isa>.cc.
#pragma once

#include "core/max_pool/kernels.h"
#include "core/max_pool/pool_plane.h"

#define SEMISPARSE_MAX_POOL(isa_)                                                             \
  namespace semisparse {                                                                      \
  extern const MaxPoolKernels max_pool_##isa_;                                                \
  const MaxPoolKernels max_pool_##isa_ = {#isa_, isa_::Vec::lanes, MaxPool<isa_::Vec>::pool}; \
  }
