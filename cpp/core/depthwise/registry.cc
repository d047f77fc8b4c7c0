// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/registry.h"

#include "core/depthwise/kernels.h"

namespace semisparse {

SEMISPARSE_REGISTRY(DepthwiseKernels, depthwise, depthwise_kernels, selected_depthwise_kernels)

}  // namespace semisparse
