// SPDX-License-Identifier: Apache-2.0
// Packed weights as Python holds them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "arrays.h"
#include "core/conv2d/conv2d.h"
#include "core/linear/linear.h"

namespace semisparse::python {

// Packed bytes together with the form that this machine's kernels use, which is made at the first
// convolution.
class Packed {
 public:
  explicit Packed(const ByteArray& array) : bytes(array.data(), array.data() + array.size()) {
    info = inspect_packed(bytes.data(), bytes.size());
  }

  std::vector<uint8_t> bytes;
  PackedInfo info;
  PackedWeight prepared;
  LinearWeight linear;
};

inline py::tuple shape_tuple(const WeightShape& shape) {
  return py::make_tuple(shape.out_channels, shape.in_channels_per_group, shape.kernel_h, shape.kernel_w);
}

// `weight` may be a linear layer's, (OUT, IN), where `linear` is true.
inline WeightShape weight_shape(const py::array& weight, int64_t groups, bool linear = false) {
  if (linear && weight.ndim() == 2) {
    check(groups == 1,
          "`weight` of shape (OUT, IN) is a linear layer's, which has no groups, but `groups` is ", groups);
    const WeightShape shape{weight.shape(0), weight.shape(1), 1, 1, 1};
    shape.validate();
    return shape;
  }
  check(weight.ndim() == 4, "`weight` must have shape (OC, IC/groups, KH, KW); got ", describe(weight));
  const WeightShape shape{weight.shape(0), weight.shape(1), weight.shape(2), weight.shape(3), groups};
  shape.validate();
  return shape;
}

inline Packed* packed_weight(const py::object& object) {
  check(py::isinstance<Packed>(object), "`weight` must be a PackedWeight; got ",
        std::string(py::str(py::type::of(object).attr("__name__"))), ", use PackedWeight(pack_weight(w))");
  return object.cast<Packed*>();
}

inline FloatArray float_weight(const py::object& object) {
  return contiguous<float>(object, "weight", "float32 of shape (OC, IC/groups, KH, KW)");
}

}  // namespace semisparse::python
