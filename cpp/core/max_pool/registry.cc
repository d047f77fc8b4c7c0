// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/registry.h"

#include "core/max_pool/kernels.h"

namespace semisparse {

SEMISPARSE_REGISTRY(MaxPoolKernels, max_pool, max_pool_kernels, selected_max_pool_kernels)

}  // namespace semisparse
