// SPDX-License-Identifier: Apache-2.0
// The input as packing wants it: planes with neighbouring pixels side by side and zeros around them.
#pragma once

#include <cstdint>

#include "core/conv2d/conv2d.h"
#include "core/row_run/row_run.h"

namespace semisparse {

// Rows of the padded plane, and their distance, in elements.
inline int64_t padded_h(const Conv2dGeometry& g) {
  return g.in_h + 2 * g.pad_h;
}
inline int64_t padded_w(const Conv2dGeometry& g) {
  return g.in_w + 2 * g.pad_w;
}
inline int64_t padded_plane(const Conv2dGeometry& g) {
  return padded_h(g) * padded_w(g);
}

// Copies channels [first, first + count) of image n, any strides, to `out`, padded_plane() elements each.
void copy_padded(const Conv2dGeometry& g, const RowRunKernels& kernels, const ConstTensor4& input, int64_t n,
                 int64_t first, int64_t count, float* out);

}  // namespace semisparse
