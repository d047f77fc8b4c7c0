// SPDX-License-Identifier: Apache-2.0
// Where the windows of a convolution or a pooling lie, from (vertical, horizontal) pairs.
#pragma once

namespace semisparse {

template <class Geometry, class Pair>
void place_windows(Geometry& g, const Pair& stride, const Pair& padding, const Pair& dilation) {
  g.stride_h = stride[0];
  g.stride_w = stride[1];
  g.pad_h = padding[0];
  g.pad_w = padding[1];
  g.dilation_h = dilation[0];
  g.dilation_w = dilation[1];
}

}  // namespace semisparse
