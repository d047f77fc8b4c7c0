// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_neon.h"

#include "core/winograd/instantiate.h"

SEMISPARSE_WINOGRAD(neon)
