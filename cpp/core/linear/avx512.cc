// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_avx512.h"

#include "core/linear/instantiate.h"

SEMISPARSE_LINEAR(avx512)
