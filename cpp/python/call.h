// SPDX-License-Identifier: Apache-2.0
// Calls of operators on given arrays, checked once and made again and again; and sequences of them, which is
// what a planned network is.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "arrays.h"
#include "core/base/parallel.h"
#include "core/base/tensor.h"

namespace semisparse::python {

// An operator with its arguments checked and bound to arrays, which it keeps alive. Their memory is read anew
// at every run.
class Call {
 public:
  virtual ~Call() = default;
  // Computes into the output. Touches no Python object: runs without the interpreter's lock.
  virtual void run(Parallel& parallel) = 0;
  // Another array of the same shape in place of the input; None lets go of the one that it has.
  virtual void rebind(const py::object& input) = 0;

  // Runs, with the threads of the process, and returns the output.
  FloatArray operator()();
  // Whether nothing had to be copied to be readable: only then does a second run see new values.
  bool reads_in_place() const { return reads_in_place_; }

 protected:
  FloatArray output_;
  bool reads_in_place_ = true;
};

// Calls that follow each other: one entry into this library, one lock, one look at the threads.
class Sequence {
 public:
  explicit Sequence(std::vector<py::object> calls);
  void operator()();

 private:
  std::vector<py::object> owners_;
  std::vector<Call*> calls_;
};

// The input of a call: (N, C, H, W), without a copy where numpy's byte strides are whole floats and none is
// negative.
class Image {
 public:
  explicit Image(const py::object& object);
  void rebind(const py::object& object);  // see Call
  int64_t size(int axis) const { return shape_[axis]; }
  const py::array& array() const { return array_; }
  // Throws Error if there is none.
  const ConstTensor4& tensor() const;
  bool in_place(const py::object& object) const { return array_.is(object); }

 private:
  void take(const py::object& object);
  py::array array_;
  ConstTensor4 tensor_;
  int64_t shape_[4] = {};
};

// Where a result goes: a new array, or the caller's.
FloatArray output_array(const py::object& out, const std::vector<int64_t>& shape, const py::array& input);

void define_calls(py::module_& m);        // Call, Sequence
void define_layer_calls(py::module_& m);  // Conv2dCall, LinearCall, MatmulCall, MaxPool2dCall
void define_array_calls(py::module_& m);  // all others

}  // namespace semisparse::python
