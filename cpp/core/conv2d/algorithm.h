// SPDX-License-Identifier: Apache-2.0
// Which algorithm computes a convolution.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/conv2d/conv2d.h"

namespace semisparse {

enum class Algorithm : uint8_t { automatic, im2col, direct, winograd4, winograd2, depthwise };

// Throws Error naming the known algorithms.
Algorithm parse_algorithm(std::string_view name);
const char* algorithm_name(Algorithm algorithm);

// Whether an algorithm can compute this convolution at all.
bool algorithm_applies(Algorithm algorithm, const Conv2dGeometry& geometry);

// The one of least estimated time. `mask` as in conv2d, or null.
Algorithm cheapest_algorithm(const Conv2dGeometry& geometry, const PackedInfo& weight, const uint8_t* mask);

// What every layer runs that it applies to, until told otherwise; `automatic` gives the choice back. It
// begins as the environment variable SEMISPARSE_ALGORITHM says. Returns what was set before. For measuring
// and debugging; thread safe.
Algorithm force_algorithm(Algorithm algorithm);

// What one layer runs, found by measuring: the layer is known by PackedInfo::checksum and its input size.
// `automatic` forgets it. Throws Error if it does not apply to such a layer when the layer is run next.
void prefer_algorithm(uint64_t checksum, int64_t in_h, int64_t in_w, Algorithm algorithm);

// What to run, all of the above considered.
Algorithm decide_algorithm(const Conv2dGeometry& geometry, const PackedInfo& weight, const uint8_t* mask);

// The same for tensors in half precision: what their kernels run. None if they are computed in float32,
// because the processor has no such kernels or because another algorithm is faster.
std::optional<Algorithm> decide_half_algorithm(const Conv2dGeometry& geometry, const PackedInfo& weight,
                                               const uint8_t* mask);

// Changes whenever one of the above settings does: decisions made under another number are stale.
uint32_t algorithm_settings();

}  // namespace semisparse
