// SPDX-License-Identifier: Apache-2.0
// semisparse._core: cpp/core for numpy arrays, without torch. Documented and made convenient by
// semisparse/runtime.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "arrays.h"
#include "call.h"
#include "core/conv2d/algorithm.h"
#include "core/conv2d/conv2d.h"
#include "core/cpu/cpu.h"
#include "packed.h"
#include "threads.h"

namespace semisparse::python {
namespace {

ByteArray byte_array(const py::object& object) {
  const auto array = contiguous<uint8_t>(object, "packed", "uint8 of shape (bytes,), made by pack_weight");
  check(array.ndim() == 1, "`packed` must be one-dimensional; got ", describe(array));
  return array;
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

  define_calls(m);
  define_layer_calls(m);
  define_array_calls(m);
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
