// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/registry.h"

#include "core/arrays/kernels.h"

namespace semisparse {

SEMISPARSE_REGISTRY(ArrayKernels, arrays, array_kernels, selected_array_kernels)

}  // namespace semisparse
