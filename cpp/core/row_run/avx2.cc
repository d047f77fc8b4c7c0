// SPDX-License-Identifier: Apache-2.0
#include "core/simd/vec_avx2.h"

#include "core/row_run/instantiate.h"

SEMISPARSE_ROW_RUN(avx2, "4x3v8")
