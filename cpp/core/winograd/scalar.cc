// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_scalar.h"

#include "core/winograd/instantiate.h"

SEMISPARSE_WINOGRAD(scalar)
