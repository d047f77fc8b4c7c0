// SPDX-License-Identifier: Apache-2.0
// Makes one instruction set's LinearKernels out of its Vec. Included once by each <isa>.cc.
#pragma once

#include "core/linear/kernels.h"
#include "core/linear/panel.h"

#define SEMISPARSE_LINEAR(isa_)                                            \
  namespace semisparse {                                                   \
  extern const LinearKernels linear_##isa_;                                \
  const LinearKernels linear_##isa_ = {#isa_,                              \
                                       isa_::Vec::lanes,                   \
                                       LinearPanel<isa_::Vec>::max_rows,   \
                                       isa_::Vec::byte_scale,              \
                                       LinearPanel<isa_::Vec>::dense<>,    \
                                       LinearPanel<isa_::Vec>::shared<>,   \
                                       LinearPanel<isa_::Vec>::sliding<>}; \
  }
