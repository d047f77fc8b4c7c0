// SPDX-License-Identifier: Apache-2.0
// Tensors for results. malloc hands out other memory at every call of a network, twice as much of it in all
// as is in use at any time, and what does not stay in the last cache is paid for with every layer: 1x1 layers
// of ResNet50 took twice as long as in memory that is used again. So large results come from one region, each
// at the lowest place where it fits.
#pragma once

#include <ATen/core/Tensor.h>

namespace semisparse::ops {

// A contiguous CPU tensor, not initialised; like any other (also resizable). Small ones, and those that find
// no place in the region, are PyTorch's own. The region's memory is taken as it is needed and kept: 64 MiB at
// most. Safe to call from several threads.
at::Tensor new_output(at::IntArrayRef sizes, at::ScalarType dtype);

}  // namespace semisparse::ops
