// SPDX-License-Identifier: Apache-2.0
// Arithmetic, activations, softmax, averages, resizing and copies as calls.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "arrays.h"
#include "call.h"
#include "core/arrays/arrays.h"
#include "core/base/error.h"

namespace semisparse::python {
namespace {

using Sizes = std::vector<int64_t>;

Sizes shape_of(const py::array& array) {
  return {array.shape(), array.shape() + array.ndim()};
}

// An array of any shape and strides; copied only if its strides are no whole floats.
class Operand {
 public:
  Operand(const py::object& object, const char* name) : name_(name) {
    take(object);
    shape_ = shape_of(array_);
  }

  void rebind(const py::object& object) {  // see Call
    if (object.is_none()) {
      array_ = py::array();
      data_ = nullptr;
      return;
    }
    check_shape(checked<float>(object, name_, "float32"), name_, shape_);
    take(object);
  }

  const py::array& array() const { return array_; }
  const Sizes& shape() const { return shape_; }
  bool in_place(const py::object& object) const { return array_.is(object); }

  const float* data() const {
    check(data_ != nullptr, "the call has no input at present: rebind it to one.");
    return data_;
  }

  // Of an array that is broadcast to `shape`.
  Sizes strides(const Sizes& shape) const {
    Sizes result(shape.size(), 0);
    const size_t skip = shape.size() - shape_.size();
    for (size_t d = 0; d < shape_.size(); ++d)
      if (shape_[d] != 1)
        result[skip + d] =
            array_.strides(static_cast<py::ssize_t>(d)) / static_cast<py::ssize_t>(sizeof(float));
    return result;
  }
  Sizes strides() const { return strides(shape_); }

 private:
  void take(const py::object& object) {
    const py::array array = checked<float>(object, name_, "float32");
    bool plain = reinterpret_cast<uintptr_t>(array.data()) % alignof(float) == 0;
    for (py::ssize_t d = 0; d < array.ndim(); ++d)
      plain = plain && array.strides(d) % static_cast<py::ssize_t>(sizeof(float)) == 0;
    array_ = plain ? array : py::array(FloatArray::ensure(array));
    data_ = static_cast<const float*>(array_.data());
  }

  const char* name_;
  py::array array_;
  const float* data_ = nullptr;
  Sizes shape_;
};

Sizes contiguous_strides(const Sizes& shape) {
  Sizes strides(shape.size());
  int64_t extent = 1;
  for (size_t d = shape.size(); d-- > 0; extent *= shape[d]) strides[d] = extent;
  return strides;
}

size_t checked_axis(int64_t axis, size_t rank) {
  const auto dimensions = static_cast<int64_t>(rank);
  check(axis >= -dimensions && axis < dimensions, "axis ", axis, " of an array with ", dimensions,
        " dimensions.");
  return static_cast<size_t>(axis < 0 ? axis + dimensions : axis);
}

// A call that reads one array; prepare() follows each change of its strides.
class OneOperandCall : public Call {
 public:
  explicit OneOperandCall(const py::object& input) : input_(input, "input") {
    reads_in_place_ = input_.in_place(input);
  }

  void rebind(const py::object& input) override {
    input_.rebind(input);
    if (!input.is_none()) prepare();
  }

 protected:
  virtual void prepare() = 0;
  void allocate(const py::object& out, const Sizes& shape) {
    output_ = output_array(out, shape, input_.array());
    result_ = output_.mutable_data();
    prepare();
  }

  Operand input_;
  float* result_ = nullptr;
};

class CopyCall final : public OneOperandCall {
 public:
  CopyCall(const py::object& input, const py::object& out) : OneOperandCall(input) {
    allocate(out, input_.shape());
  }
  void run(Parallel& parallel) override { copy(layout_, input_.data(), result_, parallel); }

 private:
  void prepare() override {
    layout_ = Layout(input_.shape(), {input_.strides(), contiguous_strides(input_.shape())});
  }
  Layout layout_;
};

class ActivateCall final : public OneOperandCall {
 public:
  ActivateCall(const py::object& input, const std::string& activation, const py::object& out)
      : OneOperandCall(input), activation_(parse_activation(activation)) {
    allocate(out, input_.shape());
  }
  void run(Parallel& parallel) override { activate(activation_, layout_, input_.data(), result_, parallel); }

 private:
  void prepare() override {
    layout_ = Layout(input_.shape(), {input_.strides(), contiguous_strides(input_.shape())});
  }
  Activation activation_;
  Layout layout_;
};

class CombineCall final : public OneOperandCall {
 public:
  CombineCall(const py::object& input, const std::string& operation, const py::object& other,
              const py::object& out)
      : OneOperandCall(input), operation_(parse_arithmetic(operation)), other_(other, "other") {
    reads_in_place_ = reads_in_place_ && other_.in_place(other);
    const Sizes &a = input_.shape(), &b = other_.shape();
    shape_.resize(std::max(a.size(), b.size()));
    for (size_t d = 0; d < shape_.size(); ++d) {
      const int64_t p = d < a.size() ? a[a.size() - 1 - d] : 1, q = d < b.size() ? b[b.size() - 1 - d] : 1;
      check(p == q || p == 1 || q == 1, "`input` is ", describe(input_.array()), " and `other` ",
            describe(other_.array()), ": they cannot be broadcast to one shape.");
      shape_[shape_.size() - 1 - d] = p == 1 ? q : p;
    }
    allocate(out, shape_);
  }
  void run(Parallel& parallel) override {
    combine(operation_, layout_, input_.data(), other_.data(), result_, parallel);
  }

 private:
  void prepare() override {
    layout_ = Layout(shape_, {input_.strides(shape_), other_.strides(shape_), contiguous_strides(shape_)});
  }
  Arithmetic operation_;
  Operand other_;
  Sizes shape_;
  Layout layout_;
};

class SoftmaxCall final : public OneOperandCall {
 public:
  SoftmaxCall(const py::object& input, int64_t axis, const py::object& out)
      : OneOperandCall(input), axis_(checked_axis(axis, input_.shape().size())) {
    check(input_.shape()[axis_] >= 1, "softmax of no entries: `input` is ", describe(input_.array()), ".");
    allocate(out, input_.shape());
  }
  void run(Parallel& parallel) override {
    softmax(layout_, input_.shape()[axis_], in_step_, out_step_, input_.data(), result_, parallel);
  }

 private:
  void prepare() override {
    Sizes sizes = input_.shape(), in = input_.strides(), out = contiguous_strides(sizes);
    in_step_ = in[axis_];
    out_step_ = out[axis_];
    for (Sizes* const of : {&sizes, &in, &out}) of->erase(of->begin() + static_cast<std::ptrdiff_t>(axis_));
    layout_ = Layout(sizes, {in, out});
  }
  size_t axis_;
  int64_t in_step_ = 0, out_step_ = 0;
  Layout layout_;
};

// A call that reads images (N, C, H, W).
class ImageCall : public Call {
 public:
  explicit ImageCall(const py::object& input)
      : input_(input), planes_{input_.size(0), input_.size(1), input_.size(2), input_.size(3)} {
    reads_in_place_ = input_.in_place(input);
  }
  void rebind(const py::object& input) override { input_.rebind(input); }

 protected:
  void allocate(const py::object& out, size_t rows, size_t columns) {
    output_ = output_array(
        out, {planes_.batch, planes_.channels, static_cast<int64_t>(rows), static_cast<int64_t>(columns)},
        input_.array());
    result_ = output_.mutable_data();
  }
  Image input_;
  Planes planes_;
  float* result_ = nullptr;
};

class AvgPool2dCall final : public ImageCall {
 public:
  AvgPool2dCall(const py::object& input, const std::vector<Pair>& rows, const std::vector<Pair>& columns,
                float divisor, const py::object& out)
      : ImageCall(input),
        rows_(windows(rows, planes_.height)),
        columns_(windows(columns, planes_.width)),
        divisor_(divisor) {
    allocate(out, rows_.size(), columns_.size());
  }
  void run(Parallel& parallel) override {
    avg_pool2d(planes_, input_.tensor(), rows_, columns_, divisor_, result_, parallel);
  }

 private:
  static std::vector<Window> windows(const std::vector<Pair>& pairs, int64_t length) {
    std::vector<Window> result;
    for (const Pair& pair : pairs) {
      check(0 <= pair[0] && pair[0] < pair[1] && pair[1] <= length, "pooling window of pixels ", pair[0],
            " to ", pair[1], ": expected at least one of the ", length, " of the image.");
      result.push_back({pair[0], pair[1]});
    }
    return result;
  }
  std::vector<Window> rows_, columns_;
  float divisor_;
};

class UpsampleNearest2dCall final : public ImageCall {
 public:
  UpsampleNearest2dCall(const py::object& input, Sizes rows, Sizes columns, const py::object& out)
      : ImageCall(input), rows_(std::move(rows)), columns_(std::move(columns)) {
    for (const int64_t row : rows_) check_pixel(row, planes_.height);
    for (const int64_t column : columns_) check_pixel(column, planes_.width);
    allocate(out, rows_.size(), columns_.size());
  }
  void run(Parallel& parallel) override {
    upsample_nearest2d(planes_, input_.tensor(), rows_, columns_, result_, parallel);
  }

 private:
  static void check_pixel(int64_t pixel, int64_t length) {
    check(0 <= pixel && pixel < length, "pixel ", pixel, ": expected one of the ", length, " of the image.");
  }
  Sizes rows_, columns_;
};

// Parts that lie in `out` already, where they belong, cost nothing.
class ConcatenateCall final : public Call {
 public:
  ConcatenateCall(const std::vector<py::object>& inputs, int64_t axis, const py::object& out) {
    check(!inputs.empty(), "a concatenation needs at least one array.");
    for (const py::object& input : inputs) {
      inputs_.emplace_back(input, "input");
      reads_in_place_ = reads_in_place_ && inputs_.back().in_place(input);
    }
    Sizes shape = inputs_[0].shape();
    const size_t along = checked_axis(axis, shape.size());
    shape[along] = 0;
    for (const Operand& input : inputs_) {
      bool fits = input.shape().size() == shape.size();
      for (size_t d = 0; fits && d < shape.size(); ++d) fits = d == along || input.shape()[d] == shape[d];
      check(fits, "concatenation along axis ", axis, " of ", describe(inputs_[0].array()), " and ",
            describe(input.array()), ": all other sizes must be the same.");
      shape[along] += input.shape()[along];
    }
    output_ = output_array(out, shape, py::array_t<float>(0));
    const Sizes strides = contiguous_strides(shape);
    float* to = output_.mutable_data();
    for (const Operand& input : inputs_) {
      const int64_t length = input.shape()[along];
      const Layout layout(input.shape(), {input.strides(), strides});
      if (input.array().data() != to || !layout.same(0, 1)) parts_.push_back({&input, layout, to});
      to += length * strides[along];
    }
  }
  void run(Parallel& parallel) override {
    for (const Part& part : parts_) copy(part.layout, part.input->data(), part.to, parallel);
  }
  void rebind(const py::object&) override { fail("a concatenation has several inputs: make a new call."); }

 private:
  struct Part {
    const Operand* input;
    Layout layout;
    float* to;
  };
  std::vector<Operand> inputs_;
  std::vector<Part> parts_;
};

}  // namespace

void define_array_calls(py::module_& m) {
  using Object = const py::object&;
  const auto none = py::none();
  py::class_<CopyCall, Call>(m, "CopyCall")
      .def(py::init<Object, Object>(), py::arg("input"), py::arg("out") = none);
  py::class_<ActivateCall, Call>(m, "ActivateCall")
      .def(py::init<Object, const std::string&, Object>(), py::arg("input"), py::arg("activation"),
           py::arg("out") = none);
  py::class_<CombineCall, Call>(m, "CombineCall")
      .def(py::init<Object, const std::string&, Object, Object>(), py::arg("input"), py::arg("operation"),
           py::arg("other"), py::arg("out") = none);
  py::class_<SoftmaxCall, Call>(m, "SoftmaxCall")
      .def(py::init<Object, int64_t, Object>(), py::arg("input"), py::arg("axis"), py::arg("out") = none);
  py::class_<AvgPool2dCall, Call>(m, "AvgPool2dCall")
      .def(py::init<Object, const std::vector<Pair>&, const std::vector<Pair>&, float, Object>(),
           py::arg("input"), py::arg("rows"), py::arg("columns"), py::arg("divisor"), py::arg("out") = none);
  py::class_<UpsampleNearest2dCall, Call>(m, "UpsampleNearest2dCall")
      .def(py::init<Object, Sizes, Sizes, Object>(), py::arg("input"), py::arg("rows"), py::arg("columns"),
           py::arg("out") = none);
  py::class_<ConcatenateCall, Call>(m, "ConcatenateCall")
      .def(py::init<const std::vector<py::object>&, int64_t, Object>(), py::arg("inputs"), py::arg("axis"),
           py::arg("out") = none);
}

}  // namespace semisparse::python
