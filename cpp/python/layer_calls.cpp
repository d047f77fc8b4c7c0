// SPDX-License-Identifier: Apache-2.0
// Convolution, linear layer, matrix product and max pooling as calls.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "arrays.h"
#include "call.h"
#include "core/base/windows.h"
#include "core/conv2d/conv2d.h"
#include "core/linear/linear.h"
#include "core/max_pool/max_pool.h"
#include "packed.h"

namespace semisparse::python {
namespace {

class Conv2dCall final : public Call {
 public:
  Conv2dCall(const py::object& input, const py::object& weight, const py::object& bias, Pair stride,
             Pair padding, Pair dilation, int64_t groups, const py::object& mask, const py::object& fill,
             const std::string& activation, const py::object& residual, const py::object& out)
      : input_(input) {
    if (py::isinstance<Packed>(weight)) {
      packed_owner_ = weight;
      packed_ = weight.cast<Packed*>();
      geometry_.weight = packed_->info.shape;
      check(groups == 0 || groups == geometry_.weight.groups, "`groups` is ", groups,
            ", but the weight was packed with groups = ", geometry_.weight.groups);
    } else {
      weight_ = float_weight(weight);
      geometry_.weight = weight_shape(weight_, groups == 0 ? 1 : groups);
    }
    geometry_.batch = input_.size(0);
    geometry_.in_h = input_.size(2);
    geometry_.in_w = input_.size(3);
    place_windows(geometry_, stride, padding, dilation);
    geometry_.validate();
    check(input_.size(1) == geometry_.in_channels(), "`input` has ", input_.size(1),
          " channels, but the weight expects ", geometry_.in_channels(),
          " (IC/groups = ", geometry_.weight.in_channels_per_group, " times ", geometry_.weight.groups,
          " groups)");

    const int64_t channels = geometry_.out_channels(), out_h = geometry_.out_h(), out_w = geometry_.out_w();
    output_ = output_array(out, {geometry_.batch, channels, out_h, out_w}, input_.array());
    operands_.activation = parse_activation(activation);
    operands_.output = output_.mutable_data();
    if (!bias.is_none()) {
      bias_ = contiguous<float>(bias, "bias", "float32 of shape (OC,)");
      check_shape(bias_, "bias", {channels});
      operands_.bias = bias_.data();
    }
    if (!fill.is_none()) {
      fill_ = contiguous<float>(fill, "fill", "float32 of shape (OC,)");
      check_shape(fill_, "fill", {channels});
      operands_.fill = fill_.data();
    }
    if (!residual.is_none()) {
      residual_ = contiguous<float>(residual, "residual", "float32 of the output's shape");
      check_shape(residual_, "residual", {geometry_.batch, channels, out_h, out_w});
      operands_.residual = residual_.data();
    }
    if (!mask.is_none()) {
      mask_ = contiguous<bool>(mask, "mask", "bool of shape (OH, OW), True = computed");
      check_shape(mask_, "mask", {out_h, out_w});
      mask_bytes_ = reinterpret_cast<const uint8_t*>(mask_.data());
    }
    reads_in_place_ = input_.in_place(input) && (residual.is_none() || residual_.is(residual));
  }

  void run(Parallel& parallel) override {
    Conv2dOperands operands = operands_;
    operands.input = input_.tensor();
    if (packed_ != nullptr)
      conv2d(geometry_, packed_->prepared, packed_->bytes.data(), packed_->bytes.size(), mask_bytes_,
             operands, parallel);
    else
      conv2d(geometry_, weight_.data(), mask_bytes_, operands, parallel);
  }

  void rebind(const py::object& input) override { input_.rebind(input); }

 private:
  Image input_;
  FloatArray weight_, bias_, fill_, residual_;
  py::array_t<bool, py::array::c_style> mask_;
  py::object packed_owner_;
  Packed* packed_ = nullptr;
  const uint8_t* mask_bytes_ = nullptr;
  Conv2dGeometry geometry_;
  Conv2dOperands operands_;
};

class MaxPool2dCall final : public Call {
 public:
  MaxPool2dCall(const py::object& input, Pair kernel_size, Pair stride, Pair padding, Pair dilation,
                bool ceil_mode, const py::object& out)
      : input_(input) {
    geometry_.batch = input_.size(0);
    geometry_.channels = input_.size(1);
    geometry_.in_h = input_.size(2);
    geometry_.in_w = input_.size(3);
    geometry_.kernel_h = kernel_size[0];
    geometry_.kernel_w = kernel_size[1];
    place_windows(geometry_, stride, padding, dilation);
    geometry_.ceil_mode = ceil_mode;
    geometry_.validate();
    output_ = output_array(out, {geometry_.batch, geometry_.channels, geometry_.out_h(), geometry_.out_w()},
                           input_.array());
    result_ = output_.mutable_data();
    reads_in_place_ = input_.in_place(input);
  }

  void run(Parallel& parallel) override { max_pool2d(geometry_, input_.tensor(), result_, parallel); }

  void rebind(const py::object& input) override { input_.rebind(input); }

 private:
  Image input_;
  float* result_ = nullptr;
  MaxPool2dGeometry geometry_;
};

class LinearCall final : public Call {
 public:
  LinearCall(const py::object& input, const py::object& weight, const py::object& bias,
             const std::string& activation, const py::object& out)
      : input_(take(input)), packed_owner_(weight), packed_(packed_weight(weight)) {
    const WeightShape& shape = packed_->info.shape;
    check(shape.taps() == 1 && shape.groups == 1, "`weight` was packed from shape ",
          std::string(py::str(shape_tuple(shape))), " with groups = ", shape.groups,
          ", but a linear layer needs one packed from (OUT, IN) or (OUT, IN, 1, 1)");
    check(input_.ndim() >= 1 && input_.shape(input_.ndim() - 1) == shape.in_channels_per_group,
          "`input` must have ", shape.in_channels_per_group, " features in its last dimension; got ",
          describe(input_));
    geometry_ = {1, shape.in_channels_per_group, shape.out_channels};
    shape_.assign(input_.shape(), input_.shape() + input_.ndim());
    std::vector<int64_t> result = shape_;
    result.back() = shape.out_channels;
    for (size_t axis = 0; axis + 1 < result.size(); ++axis) geometry_.rows *= result[axis];
    output_ = output_array(out, result, input_);
    operands_.input = input_.data();
    operands_.row_stride = geometry_.in_features;
    operands_.activation = parse_activation(activation);
    operands_.output = output_.mutable_data();
    reads_in_place_ = input_.is(input);
    if (bias.is_none()) return;
    bias_ = contiguous<float>(bias, "bias", "float32 of shape (OUT,)");
    check_shape(bias_, "bias", {geometry_.out_features});
    operands_.bias = bias_.data();
  }

  void run(Parallel& parallel) override {
    check(operands_.input != nullptr, "the call has no input at present: rebind it to one.");
    linear(geometry_, packed_->linear, packed_->bytes.data(), packed_->bytes.size(), operands_, parallel);
  }

  void rebind(const py::object& input) override {
    if (input.is_none()) {
      input_ = FloatArray();
      operands_.input = nullptr;
      return;
    }
    const FloatArray array = take(input);
    check_shape(array, "input", shape_);
    input_ = array;
    operands_.input = input_.data();
  }

 private:
  static FloatArray take(const py::object& input) {
    return contiguous<float>(input, "input", "float32 of shape (..., IN)");
  }

  FloatArray input_, bias_;
  py::object packed_owner_;
  Packed* packed_;
  std::vector<int64_t> shape_;
  LinearGeometry geometry_;
  LinearOperands operands_;
};

// A convolution of 1x1: the rows of `a` are its filters, the columns of `b` its pixels. (Not by numpy's BLAS,
// whose threads go on spinning for some 20 ms and take the processors from ours.)
class MatmulCall final : public Call {
 public:
  MatmulCall(const py::object& a, const py::object& b, const py::object& out) : a_(a), b_(b) {
    const std::vector<int64_t> shape = {a_.size(0), a_.size(1), a_.size(2), b_.size(3)};
    check(
        a_.size(0) == b_.size(0) && a_.size(1) == b_.size(1) && a_.size(3) == b_.size(2), "`a` is ",
        describe(a_.array()), " and `b` is ", describe(b_.array()),
        ", which have no product: the first two sizes must be the same, and `a` must have as many columns as "
        "`b` has rows");
    geometry_.in_h = 1;
    geometry_.in_w = shape[3];
    geometry_.weight = {shape[2], a_.size(3), 1, 1, 1};
    geometry_.validate();
    output_ = output_array(out, shape, a_.array());
    output_ = output_array(output_, shape, b_.array());
    result_ = output_.mutable_data();
    reads_in_place_ = a_.in_place(a) && b_.in_place(b);
  }

  void run(Parallel& parallel) override {
    const ConstTensor4 &a = a_.tensor(), &b = b_.tensor();
    const int64_t rows = a_.size(2), columns = a_.size(3);
    const bool side_by_side = a.stride[3] == 1 && a.stride[2] == columns;
    std::vector<float> copy(static_cast<size_t>(side_by_side ? 0 : rows * columns));
    Conv2dOperands operands;
    operands.output = result_;
    for (int64_t n = 0; n < a_.size(0); ++n) {
      for (int64_t c = 0; c < a_.size(1); ++c, operands.output += rows * geometry_.in_w) {
        const float* const from = a.data + n * a.stride[0] + c * a.stride[1];
        if (!side_by_side)
          for (int64_t y = 0; y < rows; ++y)
            for (int64_t x = 0; x < columns; ++x)
              copy[static_cast<size_t>(y * columns + x)] = from[y * a.stride[2] + x * a.stride[3]];
        operands.input = {b.data + n * b.stride[0] + c * b.stride[1], {0, b.stride[2], 0, b.stride[3]}};
        conv2d(geometry_, side_by_side ? from : copy.data(), nullptr, operands, parallel);
      }
    }
  }

  void rebind(const py::object& input) override {
    if (input.is_none()) return a_.rebind(input);
    const auto sizes = py::make_tuple(a_.size(0), a_.size(1), a_.size(2), a_.size(3));
    a_.rebind(py::module_::import("numpy").attr("broadcast_to")(input, sizes));
  }

 private:
  Image a_, b_;
  float* result_ = nullptr;
  Conv2dGeometry geometry_;
};

}  // namespace

void define_layer_calls(py::module_& m) {
  using Object = const py::object&;
  py::class_<Conv2dCall, Call>(m, "Conv2dCall")
      .def(py::init<Object, Object, Object, Pair, Pair, Pair, int64_t, Object, Object, const std::string&,
                    Object, Object>(),
           py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("stride"), py::arg("padding"),
           py::arg("dilation"), py::arg("groups"), py::arg("mask"), py::arg("fill"), py::arg("activation"),
           py::arg("residual"), py::arg("out"));
  py::class_<LinearCall, Call>(m, "LinearCall")
      .def(py::init<Object, Object, Object, const std::string&, Object>(), py::arg("input"),
           py::arg("weight"), py::arg("bias"), py::arg("activation"), py::arg("out"));
  py::class_<MatmulCall, Call>(m, "MatmulCall", "Matrices are the last two of four dimensions.")
      .def(py::init<Object, Object, Object>(), py::arg("a"), py::arg("b"), py::arg("out"));
  py::class_<MaxPool2dCall, Call>(m, "MaxPool2dCall")
      .def(py::init<Object, Pair, Pair, Pair, Pair, bool, Object>(), py::arg("input"), py::arg("kernel_size"),
           py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("ceil_mode"), py::arg("out"));
}

}  // namespace semisparse::python
