// SPDX-License-Identifier: Apache-2.0
// Packed tensors are portable bytes; the kernels need them checked and arranged for this machine, once. This
// is where the arranged form lives: beside each packed tensor's storage, for as long as that storage lives.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "core/conv2d/conv2d.h"
#include "core/linear/linear.h"

namespace semisparse::ops {

// What the kernels made of one packed tensor; empty until an operator uses it.
struct PreparedWeights {
  PackedWeight conv2d;
  LinearWeight linear;
};

// The arranged weights of `packed` (contiguous, one-dimensional, uint8). The same object is returned as long
// as the tensor's bytes have not been changed: same storage, address, size, version counter and header.
// Anything else, a clone with one byte changed for example, gets a new one, which core validates from the
// first byte to the last. Bytes changed behind PyTorch's back (through a numpy view) are not noticed: a
// packed tensor is meant to be immutable. Safe to call from several threads.
std::shared_ptr<PreparedWeights> prepared_weights(const at::Tensor& packed);

// Removes the arranged weights of storages that have been freed (also happens by and by). Returns how many
// are left.
size_t purge_prepared_weights();

}  // namespace semisparse::ops
