// SPDX-License-Identifier: Apache-2.0
// The operator: a linear layer that skips zero weights.
//   y[n,o] = a( sum_i W[o,i] * x[n,i] + bias[o] )
// One row n (a picture at a time) is bound by reading the weights once, see kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/base/parallel.h"
#include "core/conv2d/conv2d.h"

namespace semisparse {

struct LinearGeometry {
  int64_t rows = 1;  // may be 0
  int64_t in_features = 0, out_features = 0;
};

struct LinearOperands {
  const float* input = nullptr;  // (rows, in_features), neighbouring features side by side
  int64_t row_stride = 0;        // elements between the input's rows, any
  const float* bias = nullptr;   // out_features floats or null
  float* output = nullptr;       // contiguous (rows, out_features); every element is written
  Activation activation = Activation::none;
};

// Weights made ready for this machine's kernels, once, from the portable bytes: as PackedWeight is for
// convolutions, and used in the same way.
class LinearWeight {
 public:
  LinearWeight();
  ~LinearWeight();
  LinearWeight(const LinearWeight&) = delete;
  LinearWeight& operator=(const LinearWeight&) = delete;
  size_t bytes() const;  // memory held at present
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// `packed`/`size`: portable bytes (packed.h) of a weight of shape (out_features, in_features, 1, 1) without
// groups; read only when `weight` has not yet been built. Throws Error if they are not of that shape. The
// result does not depend on parallel.threads(). Where a zero weight meets an infinite or NaN input, the
// result is NaN or is as if the weight were not there: blocks of weights may hold some zeros.
void linear(const LinearGeometry& geometry, LinearWeight& weight, const uint8_t* packed, size_t size,
            const LinearOperands& operands, Parallel& parallel);

// float64 reference, plain loops; for tests. `weight` dense, contiguous (out_features, in_features).
void linear_reference(const LinearGeometry& geometry, const float* weight, const LinearOperands& operands);

}  // namespace semisparse
