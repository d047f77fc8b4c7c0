// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_neon_fp16.h"

#include "core/row_run/instantiate.h"

SEMISPARSE_ROW_RUN_HALF(neon_fp16, "4x6v8")
