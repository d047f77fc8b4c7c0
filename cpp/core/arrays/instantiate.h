// SPDX-License-Identifier: Apache-2.0
// Makes one instruction set's ArrayKernels out of its Vec. Included once by each <isa>.cc.
#pragma once

#include "core/arrays/kernels.h"
#include "core/arrays/loops.h"

#define SEMISPARSE_ARRAYS(isa_)                                           \
  namespace semisparse {                                                  \
  extern const ArrayKernels arrays_##isa_;                                \
  using ArrayLoops_##isa_ = ArrayLoops<isa_::Vec>;                        \
  const ArrayKernels arrays_##isa_ = {#isa_,                              \
                                      ArrayLoops_##isa_::activate,        \
                                      ArrayLoops_##isa_::combine,         \
                                      ArrayLoops_##isa_::sum,             \
                                      ArrayLoops_##isa_::repeat2,         \
                                      ArrayLoops_##isa_::softmax_columns, \
                                      ArrayLoops_##isa_::softmax_row};    \
  }
