// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_avx512.h"

#include "core/max_pool/instantiate.h"

SEMISPARSE_MAX_POOL(avx512)
