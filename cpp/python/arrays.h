// SPDX-License-Identifier: Apache-2.0
// numpy arrays as the core wants them. Nothing is converted silently: another dtype is an error in words.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/error.h"

namespace semisparse::python {

namespace py = pybind11;
using FloatArray = py::array_t<float, py::array::c_style>;
using ByteArray = py::array_t<uint8_t, py::array::c_style>;
using Pair = std::array<int64_t, 2>;  // vertical, horizontal

inline std::string describe(const py::array& array) {
  return std::string(py::str(array.dtype())) + " of shape " +
         std::string(py::str(
             py::tuple(py::cast(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim())))));
}

// An ndarray of the given element type, aligned, native byte order; anything else is an Error.
template <typename T>
py::array checked(const py::object& object, const char* name, const char* expected) {
  // Plans check their inputs at every call: what is said about an array is not made up before it is needed.
  if (!py::isinstance<py::array>(object))
    fail("`", name, "` must be a numpy array, ", expected, "; got ",
         std::string(py::str(py::type::of(object).attr("__name__"))));
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!array.dtype().equal(py::dtype::of<T>()))
    fail("`", name, "` must be ", expected, "; got ", describe(array), ", convert it with .astype()");
  return array;
}

// The same in C order (copied only if it is not).
template <typename T>
py::array_t<T, py::array::c_style> contiguous(const py::object& object, const char* name,
                                              const char* expected) {
  return py::array_t<T, py::array::c_style>::ensure(checked<T>(object, name, expected));
}

inline void check_shape(const py::array& array, const char* name, const std::vector<int64_t>& shape) {
  if (std::equal(array.shape(), array.shape() + array.ndim(), shape.begin(), shape.end())) return;
  std::string wanted;
  for (const int64_t size : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
  fail("`", name, "` must have shape (", wanted, shape.size() == 1 ? ",)" : ")", "; got ", describe(array));
}

}  // namespace semisparse::python
