// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_avx512.h"

#include "core/winograd/instantiate.h"

SEMISPARSE_WINOGRAD(avx512)
