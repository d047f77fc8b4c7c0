// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_avx2.h"

#include "core/arrays/instantiate.h"

SEMISPARSE_ARRAYS(avx2)
