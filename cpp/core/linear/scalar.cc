// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_scalar.h"

#include "core/linear/instantiate.h"

SEMISPARSE_LINEAR(scalar)
