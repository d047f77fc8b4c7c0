// SPDX-License-Identifier: Apache-2.0
// Which filters share a block of the sparse GEMM (PatDNN's filter kernel reorder, ASPLOS'20 section 5.2).
#pragma once

#include <cstdint>
#include <vector>

#include "core/weights/packed.h"

namespace semisparse {

// Output channel at each position. Filters of one convolution group stay together; inside it, filters that
// use the same im2col rows, (channel, tap) pairs, come to stand side by side, four by four, so that they are
// multiplied together in long runs. The same on every machine. The identity where that would not save at
// least 10% of the rows that blocks of four read, or would take long (above about 100 ms).
std::vector<uint32_t> choose_filter_order(const float* weight, const WeightShape& shape);

}  // namespace semisparse
