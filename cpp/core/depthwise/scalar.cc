// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_scalar.h"

#include "core/depthwise/instantiate.h"

SEMISPARSE_DEPTHWISE(scalar)
