// SPDX-License-Identifier: Apache-2.0
// semisparse._core: cpp/core for numpy arrays, without torch. Documented and made convenient by
// semisparse/runtime.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "arrays.h"
#include "core/conv2d/algorithm.h"
#include "core/conv2d/conv2d.h"
#include "core/cpu/cpu.h"
#include "core/linear/linear.h"
#include "core/max_pool/max_pool.h"
#include "threads.h"

namespace semisparse::python {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using ByteArray = py::array_t<uint8_t, py::array::c_style>;
using Pair = std::array<int64_t, 2>;

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

ByteArray byte_array(const py::object& object) {
  const auto array = contiguous<uint8_t>(object, "packed", "uint8 of shape (bytes,), made by pack_weight");
  check(array.ndim() == 1, "`packed` must be one-dimensional; got ", describe(array));
  return array;
}

py::tuple shape_tuple(const WeightShape& shape) {
  return py::make_tuple(shape.out_channels, shape.in_channels_per_group, shape.kernel_h, shape.kernel_w);
}

// `weight` may be a linear layer's, (OUT, IN), where `linear` is true.
WeightShape weight_shape(const py::array& weight, int64_t groups, bool linear = false) {
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

FloatArray float_weight(const py::object& object) {
  return contiguous<float>(object, "weight", "float32 of shape (OC, IC/groups, KH, KW)");
}

ByteArray pack(const py::object& object, int64_t groups) {
  const FloatArray weight = float_weight(object);
  const WeightShape shape = weight_shape(weight, groups, /*linear=*/true);
  const std::vector<uint8_t> bytes = pack_weight(weight.data(), shape);
  ByteArray packed(static_cast<py::ssize_t>(bytes.size()));
  std::memcpy(packed.mutable_data(), bytes.data(), bytes.size());
  return packed;
}

FloatArray unpack_bytes(const uint8_t* bytes, size_t size) {
  const WeightShape shape = inspect_packed(bytes, size).shape;
  FloatArray weight({shape.out_channels, shape.in_channels_per_group, shape.kernel_h, shape.kernel_w});
  unpack_weight(bytes, size, weight.mutable_data());
  return weight;
}

// Strided input without a copy where numpy's byte strides are whole floats and none is negative.
py::array strided_input(const py::object& object) {
  const py::array input = checked<float>(object, "input", "float32 of shape (N, C, H, W)");
  check(input.ndim() == 4, "`input` must have shape (N, C, H, W); got ", describe(input));
  bool plain = reinterpret_cast<uintptr_t>(input.data()) % alignof(float) == 0;
  for (int axis = 0; axis < 4; ++axis)
    plain = plain && input.strides(axis) >= 0 && input.strides(axis) % sizeof(float) == 0;
  return plain ? input : py::array(FloatArray::ensure(input));
}

ConstTensor4 tensor4(const py::array& strided) {
  ConstTensor4 tensor{static_cast<const float*>(strided.data()), {}};
  for (int axis = 0; axis < 4; ++axis)
    tensor.stride[axis] = strided.strides(axis) / static_cast<py::ssize_t>(sizeof(float));
  return tensor;
}

// Where a result goes: a new array, or the caller's.
FloatArray output_array(const py::object& out, const std::vector<int64_t>& shape, const py::array& input) {
  if (out.is_none()) return FloatArray(std::vector<py::ssize_t>(shape.begin(), shape.end()));
  const py::array array = checked<float>(out, "out", "float32 of the output's shape");
  check_shape(array, "out", shape);
  check(array.writeable() && (array.flags() & py::array::c_style) != 0,
        "`out` must be C-contiguous and writeable; use np.empty(shape, np.float32)");
  const auto* const first = static_cast<const char*>(input.data());
  const char* last = first + sizeof(float);
  for (int axis = 0; axis < input.ndim(); ++axis)
    last += std::max<py::ssize_t>(input.shape(axis) - 1, 0) * input.strides(axis);
  const auto* const begin = static_cast<const char*>(array.data());
  check(input.size() == 0 || begin + array.nbytes() <= first || last <= begin,
        "`out` must not share memory with `input`; give another array");
  return py::reinterpret_borrow<FloatArray>(array);
}

// A checked call on given arrays, which it keeps alive: calling it again costs next to nothing. The arrays'
// memory is read anew at every call.
class Conv2dCall {
 public:
  Conv2dCall(const py::object& input_object, const py::object& weight_object, const py::object& bias_object,
             Pair stride, Pair padding, Pair dilation, int64_t groups, const py::object& mask_object,
             const py::object& fill_object, const std::string& activation, const py::object& residual_object,
             const py::object& out_object)
      : input_(strided_input(input_object)) {
    if (py::isinstance<Packed>(weight_object)) {
      packed_owner_ = weight_object;
      packed_ = weight_object.cast<Packed*>();
      geometry_.weight = packed_->info.shape;
      check(groups == 0 || groups == geometry_.weight.groups, "`groups` is ", groups,
            ", but the weight was packed with groups = ", geometry_.weight.groups);
    } else {
      weight_ = float_weight(weight_object);
      geometry_.weight = weight_shape(weight_, groups == 0 ? 1 : groups);
    }
    geometry_.batch = input_.shape(0);
    geometry_.in_h = input_.shape(2);
    geometry_.in_w = input_.shape(3);
    std::tie(geometry_.stride_h, geometry_.stride_w) = std::make_tuple(stride[0], stride[1]);
    std::tie(geometry_.pad_h, geometry_.pad_w) = std::make_tuple(padding[0], padding[1]);
    std::tie(geometry_.dilation_h, geometry_.dilation_w) = std::make_tuple(dilation[0], dilation[1]);
    geometry_.validate();
    check(input_.shape(1) == geometry_.in_channels(), "`input` has ", input_.shape(1),
          " channels, but the weight expects ", geometry_.in_channels(),
          " (IC/groups = ", geometry_.weight.in_channels_per_group, " times ", geometry_.weight.groups,
          " groups)");

    const int64_t channels = geometry_.out_channels(), out_h = geometry_.out_h(), out_w = geometry_.out_w();
    output_ = output_array(out_object, {geometry_.batch, channels, out_h, out_w}, input_);
    operands_.activation = parse_activation(activation);
    operands_.input = tensor4(input_);
    operands_.output = output_.mutable_data();
    if (!bias_object.is_none()) {
      bias_ = contiguous<float>(bias_object, "bias", "float32 of shape (OC,)");
      check_shape(bias_, "bias", {channels});
      operands_.bias = bias_.data();
    }
    if (!fill_object.is_none()) {
      fill_ = contiguous<float>(fill_object, "fill", "float32 of shape (OC,)");
      check_shape(fill_, "fill", {channels});
      operands_.fill = fill_.data();
    }
    if (!residual_object.is_none()) {
      residual_ = contiguous<float>(residual_object, "residual", "float32 of the output's shape");
      check_shape(residual_, "residual", {geometry_.batch, channels, out_h, out_w});
      operands_.residual = residual_.data();
    }
    if (!mask_object.is_none()) {
      mask_ = contiguous<bool>(mask_object, "mask", "bool of shape (OH, OW), True = computed");
      check_shape(mask_, "mask", {out_h, out_w});
      mask_bytes_ = reinterpret_cast<const uint8_t*>(mask_.data());
    }
  }

  FloatArray operator()() {
    const std::shared_ptr<Parallel> parallel = shared_pool();
    {
      const py::gil_scoped_release release;
      if (packed_ != nullptr)
        conv2d(geometry_, packed_->prepared, packed_->bytes.data(), packed_->bytes.size(), mask_bytes_,
               operands_, *parallel);
      else
        conv2d(geometry_, weight_.data(), mask_bytes_, operands_, *parallel);
    }
    return output_;
  }

  // Whether nothing had to be copied to make it contiguous: only then does a second call see new values.
  bool reads_in_place(const py::object& input, const py::object& residual) const {
    return input_.is(input) && (residual.is_none() || residual_.is(residual));
  }

 private:
  py::array input_;
  FloatArray weight_, bias_, fill_, residual_, output_;
  py::array_t<bool, py::array::c_style> mask_;
  py::object packed_owner_;
  Packed* packed_ = nullptr;
  const uint8_t* mask_bytes_ = nullptr;
  Conv2dGeometry geometry_;
  Conv2dOperands operands_;
};

class MaxPool2dCall {
 public:
  MaxPool2dCall(const py::object& input_object, Pair kernel_size, Pair stride, Pair padding, Pair dilation,
                bool ceil_mode, const py::object& out_object)
      : input_(strided_input(input_object)) {
    geometry_.batch = input_.shape(0);
    geometry_.channels = input_.shape(1);
    geometry_.in_h = input_.shape(2);
    geometry_.in_w = input_.shape(3);
    std::tie(geometry_.kernel_h, geometry_.kernel_w) = std::make_tuple(kernel_size[0], kernel_size[1]);
    std::tie(geometry_.stride_h, geometry_.stride_w) = std::make_tuple(stride[0], stride[1]);
    std::tie(geometry_.pad_h, geometry_.pad_w) = std::make_tuple(padding[0], padding[1]);
    std::tie(geometry_.dilation_h, geometry_.dilation_w) = std::make_tuple(dilation[0], dilation[1]);
    geometry_.ceil_mode = ceil_mode;
    geometry_.validate();
    output_ = output_array(
        out_object, {geometry_.batch, geometry_.channels, geometry_.out_h(), geometry_.out_w()}, input_);
  }

  FloatArray operator()() {
    const ConstTensor4 image = tensor4(input_);
    float* const result = output_.mutable_data();
    const std::shared_ptr<Parallel> parallel = shared_pool();
    {
      const py::gil_scoped_release release;
      max_pool2d(geometry_, image, result, *parallel);
    }
    return output_;
  }

  bool reads_in_place(const py::object& input) const { return input_.is(input); }

 private:
  py::array input_;
  FloatArray output_;
  MaxPool2dGeometry geometry_;
};

class LinearCall {
 public:
  LinearCall(const py::object& input_object, const py::object& weight_object, const py::object& bias_object,
             const std::string& activation, const py::object& out_object)
      : input_(contiguous<float>(input_object, "input", "float32 of shape (..., IN)")),
        packed_owner_(weight_object),
        packed_(weight_object.cast<Packed*>()) {
    const WeightShape& shape = packed_->info.shape;
    check(shape.taps() == 1 && shape.groups == 1, "`weight` was packed from shape ",
          std::string(py::str(shape_tuple(shape))), " with groups = ", shape.groups,
          ", but a linear layer needs one packed from (OUT, IN) or (OUT, IN, 1, 1)");
    check(input_.ndim() >= 1 && input_.shape(input_.ndim() - 1) == shape.in_channels_per_group,
          "`input` must have ", shape.in_channels_per_group, " features in its last dimension; got ",
          describe(input_));
    geometry_ = {1, shape.in_channels_per_group, shape.out_channels};
    std::vector<int64_t> result(input_.shape(), input_.shape() + input_.ndim());
    result.back() = shape.out_channels;
    for (size_t axis = 0; axis + 1 < result.size(); ++axis) geometry_.rows *= result[axis];
    output_ = output_array(out_object, result, input_);
    operands_.input = input_.data();
    operands_.row_stride = geometry_.in_features;
    operands_.activation = parse_activation(activation);
    operands_.output = output_.mutable_data();
    if (bias_object.is_none()) return;
    bias_ = contiguous<float>(bias_object, "bias", "float32 of shape (OUT,)");
    check_shape(bias_, "bias", {geometry_.out_features});
    operands_.bias = bias_.data();
  }

  FloatArray operator()() {
    const std::shared_ptr<Parallel> parallel = shared_pool();
    {
      const py::gil_scoped_release release;
      linear(geometry_, packed_->linear, packed_->bytes.data(), packed_->bytes.size(), operands_, *parallel);
    }
    return output_;
  }

  bool reads_in_place(const py::object& input) const { return input_.is(input); }

 private:
  FloatArray input_, bias_, output_;
  py::object packed_owner_;
  Packed* packed_;
  LinearGeometry geometry_;
  LinearOperands operands_;
};

py::dict cpu() {
  const CpuInfo& info = cpu_info();
  py::dict result;
  result["architecture"] = info.architecture;
  result["name"] = info.name;
  result["features"] = info.features;
  result["l1_bytes"] = info.l1_bytes;
  result["l2_bytes"] = info.l2_bytes;
  return result;
}

}  // namespace
}  // namespace semisparse::python

#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#elif defined(__GNUC__)
constexpr const char* kCompiler = "GCC " __VERSION__;
#else
constexpr const char* kCompiler = "unknown";
#endif

PYBIND11_MODULE(_core, m) {
  using namespace semisparse::python;
  using semisparse::PackedWeight;
  try {
    semisparse::require_features();
  } catch (const semisparse::Error& error) {
    throw py::import_error(error.what());
  }
  m.doc() = "cpp/core for numpy arrays; see semisparse.runtime";

  py::class_<Packed>(
      m, "PackedWeight",
      "A packed convolution weight (portable bytes) with what the kernels make of it.\n\n"
      "PackedWeight(packed): uint8 array of shape (bytes,) from `pack_weight`. ValueError if it is not "
      "a whole, unchanged packed weight. Safe to use from several threads.")
      .def(py::init([](const py::object& packed) { return std::make_unique<Packed>(byte_array(packed)); }),
           py::arg("packed"))
      .def_property_readonly(
          "shape", [](const Packed& self) { return shape_tuple(self.info.shape); }, "(OC, IC/groups, KH, KW)")
      .def_property_readonly("groups", [](const Packed& self) { return self.info.shape.groups; })
      .def_property_readonly(
          "nbytes", [](const Packed& self) { return self.bytes.size(); }, "Size of the packed form")
      .def(
          "unpack", [](const Packed& self) { return unpack_bytes(self.bytes.data(), self.bytes.size()); },
          "The weight as a float32 array; exact inverse of `pack_weight`.")
      .def(
          "prefer_algorithm",
          [](const Packed& self, Pair input_size, const std::string& name) {
            semisparse::prefer_algorithm(self.info.checksum, input_size[0], input_size[1],
                                         semisparse::parse_algorithm(name));
          },
          py::arg("input_size"), py::arg("name"),
          "What convolutions of inputs of this (height, width) with this weight run; 'automatic' forgets "
          "it.");

  // A call with its arguments checked and bound; calling it computes into `out` and returns that. For plans,
  // which call the same again and again: `reads_in_place` must be true, or it works on a copy of its input.
  py::class_<Conv2dCall>(m, "Conv2dCall")
      .def(py::init<const py::object&, const py::object&, const py::object&, Pair, Pair, Pair, int64_t,
                    const py::object&, const py::object&, const std::string&, const py::object&,
                    const py::object&>(),
           py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("stride"), py::arg("padding"),
           py::arg("dilation"), py::arg("groups"), py::arg("mask"), py::arg("fill"), py::arg("activation"),
           py::arg("residual"), py::arg("out"))
      .def("reads_in_place", &Conv2dCall::reads_in_place, py::arg("input"), py::arg("residual"))
      .def("__call__", &Conv2dCall::operator());
  py::class_<LinearCall>(m, "LinearCall")
      .def(py::init<const py::object&, const py::object&, const py::object&, const std::string&,
                    const py::object&>(),
           py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("activation"), py::arg("out"))
      .def("reads_in_place", &LinearCall::reads_in_place, py::arg("input"))
      .def("__call__", &LinearCall::operator());
  py::class_<MaxPool2dCall>(m, "MaxPool2dCall")
      .def(py::init<const py::object&, Pair, Pair, Pair, Pair, bool, const py::object&>(), py::arg("input"),
           py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
           py::arg("ceil_mode"), py::arg("out"))
      .def("reads_in_place", &MaxPool2dCall::reads_in_place, py::arg("input"))
      .def("__call__", &MaxPool2dCall::operator());
  m.def("pack_weight", &pack, py::arg("weight"), py::arg("groups") = 1);
  m.def(
      "unpack_weight",
      [](const py::object& object) {
        const ByteArray packed = byte_array(object);
        return unpack_bytes(packed.data(), packed.size());
      },
      py::arg("packed"));
  m.def(
      "inspect_packed",
      [](const py::object& object) {
        const ByteArray packed = byte_array(object);
        const semisparse::PackedInfo info = semisparse::inspect_packed(packed.data(), packed.size());
        py::dict result;
        result["shape"] = shape_tuple(info.shape);
        result["groups"] = info.shape.groups;
        result["nonzeros"] = info.nonzeros;
        result["kernels"] = info.kernels;
        result["patterns"] = info.patterns;
        result["dense"] = info.dense;
        return result;
      },
      py::arg("packed"));
  m.def("cpu_info", &cpu);
  m.def("kernel_name", &semisparse::kernel_name);
  m.def(
      "force_algorithm",
      [](const std::string& name) {
        return semisparse::algorithm_name(semisparse::force_algorithm(semisparse::parse_algorithm(name)));
      },
      py::arg("name"));
  m.attr("compiler") = kCompiler;
  m.def("set_num_threads", &set_num_threads, py::arg("threads"));
  m.def("get_num_threads", &get_num_threads);
}
