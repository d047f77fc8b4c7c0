// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_neon.h"

#include "core/row_run/instantiate.h"

SEMISPARSE_ROW_RUN(neon, "4x6v4")
