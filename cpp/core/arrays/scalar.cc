// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_scalar.h"

#include "core/arrays/instantiate.h"

SEMISPARSE_ARRAYS(scalar)
