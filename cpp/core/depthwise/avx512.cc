// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_avx512.h"

#include "core/depthwise/instantiate.h"

SEMISPARSE_DEPTHWISE(avx512)
