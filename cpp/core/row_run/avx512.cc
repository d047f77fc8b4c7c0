// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/cpu.h"
#include "core/simd/vec_avx512.h"

#include "core/row_run/instantiate.h"

SEMISPARSE_ROW_RUN(avx512, "4x6v16", ([] {
                     return cpu_has("avx512f") && cpu_has("avx512vl") && cpu_has("avx512bw") &&
                            cpu_has("avx512dq");
                   }))
