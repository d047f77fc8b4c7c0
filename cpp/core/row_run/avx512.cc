// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_avx512.h"

#include "core/row_run/instantiate.h"

SEMISPARSE_ROW_RUN(avx512, "4x6v16")
