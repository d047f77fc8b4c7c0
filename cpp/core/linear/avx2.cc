// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_avx2.h"

#include "core/linear/instantiate.h"

SEMISPARSE_LINEAR(avx2)
