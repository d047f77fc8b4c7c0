// SPDX-License-Identifier: Apache-2.0
#include "core/linear/linear.h"

namespace semisparse {

// As a convolution of a 1x1 image for each row.
void linear_reference(const LinearGeometry& g, const float* weight, const LinearOperands& operands) {
  if (g.rows == 0) return;
  Conv2dGeometry c;
  c.batch = g.rows;
  c.in_h = c.in_w = 1;
  c.weight = {g.out_features, g.in_features, 1, 1, 1};
  Conv2dOperands o;
  o.input = {operands.input, {operands.row_stride, 1, 1, 1}};
  o.bias = operands.bias;
  o.output = operands.output;
  o.activation = operands.activation;
  conv2d_reference(c, weight, nullptr, o);
}

}  // namespace semisparse
