// SPDX-License-Identifier: Apache-2.0
// Two-dimensional max pooling, with the meaning of torch.nn.functional.max_pool2d: what lies outside the
// image is -infinity, and a window that holds a NaN gives NaN.
#pragma once

#include <cstdint>

#include "core/base/parallel.h"
#include "core/base/tensor.h"

namespace semisparse {

struct MaxPool2dGeometry {
  int64_t batch = 1, channels = 1;
  int64_t in_h = 0, in_w = 0;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_h = 0, pad_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  // A last window that sticks out counts too, unless it would start beyond the image (and its left or upper
  // padding).
  bool ceil_mode = false;

  int64_t out_h() const { return out_size(in_h, kernel_h, stride_h, pad_h, dilation_h); }
  int64_t out_w() const { return out_size(in_w, kernel_w, stride_w, pad_w, dilation_w); }
  // Positive sizes, padding of at most half the kernel, an output of at least 1x1, no overflow; batch and
  // channels may be 0. Throws Error.
  void validate() const;

 private:
  int64_t out_size(int64_t in, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) const {
    const int64_t room = in + 2 * pad - dilation * (kernel - 1) - 1;  // for the first window to move in
    if (room + (ceil_mode ? stride - 1 : 0) < 0) return 0;
    const int64_t steps = (room + (ceil_mode ? stride - 1 : 0)) / stride;
    return ceil_mode && steps * stride >= in + pad ? steps : steps + 1;
  }
};

// `output`: contiguous (N, C, OH, OW); every element is written. The result does not depend on
// parallel.threads().
void max_pool2d(const MaxPool2dGeometry& geometry, const ConstTensor4& input, float* output,
                Parallel& parallel);

// Plain loops; for tests.
void max_pool2d_reference(const MaxPool2dGeometry& geometry, const ConstTensor4& input, float* output);

}  // namespace semisparse
