// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_scalar.h"

#include "core/max_pool/instantiate.h"

SEMISPARSE_MAX_POOL(scalar)
