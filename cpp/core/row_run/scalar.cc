// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_scalar.h"

#include "core/row_run/instantiate.h"

SEMISPARSE_ROW_RUN(scalar, "4x2v4")
