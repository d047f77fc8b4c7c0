// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/registry.h"

#include "core/linear/kernels.h"

namespace semisparse {

SEMISPARSE_REGISTRY(LinearKernels, linear, linear_kernels, selected_linear_kernels)

}  // namespace semisparse
