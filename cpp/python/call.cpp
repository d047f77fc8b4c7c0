// SPDX-License-Identifier: Apache-2.0
#include "call.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "core/base/error.h"
#include "threads.h"

namespace semisparse::python {

FloatArray Call::operator()() {
  const std::shared_ptr<Parallel> parallel = shared_pool();
  {
    const py::gil_scoped_release release;
    run(*parallel);
  }
  return output_;
}

Sequence::Sequence(std::vector<py::object> calls) : owners_(std::move(calls)) {
  for (const py::object& owner : owners_) calls_.push_back(owner.cast<Call*>());
}

void Sequence::operator()() {
  const std::shared_ptr<Parallel> parallel = shared_pool();
  const py::gil_scoped_release release;
  for (Call* const call : calls_) call->run(*parallel);
}

Image::Image(const py::object& object) {
  take(object);
  for (int axis = 0; axis < 4; ++axis) shape_[axis] = array_.shape(axis);
}

void Image::take(const py::object& object) {
  const py::array input = checked<float>(object, "input", "float32 of shape (N, C, H, W)");
  if (input.ndim() != 4) fail("`input` must have shape (N, C, H, W); got ", describe(input));
  bool plain = reinterpret_cast<uintptr_t>(input.data()) % alignof(float) == 0;
  for (int axis = 0; axis < 4; ++axis)
    plain = plain && input.strides(axis) >= 0 && input.strides(axis) % sizeof(float) == 0;
  array_ = plain ? input : py::array(FloatArray::ensure(input));
  tensor_.data = static_cast<const float*>(array_.data());
  for (int axis = 0; axis < 4; ++axis)
    tensor_.stride[axis] = array_.strides(axis) / static_cast<py::ssize_t>(sizeof(float));
}

void Image::rebind(const py::object& object) {
  if (object.is_none()) {
    array_.release().dec_ref();  // no empty array in its place: that would be made anew after every call
    tensor_ = ConstTensor4{};
    return;
  }
  check_shape(checked<float>(object, "input", "float32"), "input",
              std::vector<int64_t>(std::begin(shape_), std::end(shape_)));
  take(object);
}

const ConstTensor4& Image::tensor() const {
  check(tensor_.data != nullptr, "the call has no input at present: rebind it to one.");
  return tensor_;
}

FloatArray output_array(const py::object& out, const std::vector<int64_t>& shape, const py::array& input) {
  if (out.is_none()) return FloatArray(std::vector<py::ssize_t>(shape.begin(), shape.end()));
  const py::array array = checked<float>(out, "out", "float32 of the output's shape");
  check_shape(array, "out", shape);
  check(array.writeable() && (array.flags() & py::array::c_style) != 0,
        "`out` must be C-contiguous and writeable; use np.empty(shape, np.float32)");
  const auto* first = static_cast<const char*>(input.data());
  const char* last = first + sizeof(float);
  for (int axis = 0; axis < input.ndim(); ++axis) {
    const py::ssize_t reach = std::max<py::ssize_t>(input.shape(axis) - 1, 0) * input.strides(axis);
    (reach < 0 ? first : last) += reach;
  }
  const auto* const begin = static_cast<const char*>(array.data());
  check(input.size() == 0 || begin + array.nbytes() <= first || last <= begin,
        "`out` must not share memory with `input`; give another array");
  return py::reinterpret_borrow<FloatArray>(array);
}

void define_calls(py::module_& m) {
  py::class_<Call>(m, "Call",
                   "An operator with its arguments checked and bound; calling it computes into its output "
                   "and returns that. For plans, which call the same again and again: `reads_in_place` must "
                   "be true, or it works on a copy of its arguments.")
      .def("__call__", &Call::operator())
      .def("rebind", &Call::rebind, py::arg("input"),
           "Another array of the same shape in place of the input; None lets go of the present one.")
      .def_property_readonly("reads_in_place", &Call::reads_in_place);
  py::class_<Sequence>(m, "Sequence", "Calls that are made one after the other, at the price of one.")
      .def(py::init<std::vector<py::object>>(), py::arg("calls"))
      .def("__call__", &Sequence::operator());
}

}  // namespace semisparse::python
