// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_neon_in_order.h"

#include "core/row_run/instantiate.h"

SEMISPARSE_ROW_RUN_SET(neon_in_order, "neon", "4x6v4_in_order")
