// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>

#include <cstring>

#include "checks.h"
#include "core/weights/packed.h"

namespace semisparse::ops {
namespace {

at::Tensor unpack(const at::Tensor& contiguous, const WeightShape& shape) {
  at::Tensor weight = at::empty(
      {shape.out_channels, shape.in_channels_per_group, shape.kernel_h, shape.kernel_w}, at::kFloat);
  semisparse::unpack_weight(contiguous.const_data_ptr<uint8_t>(), contiguous.numel(),
                            weight.mutable_data_ptr<float>());
  return weight;
}

}  // namespace

at::Tensor pack_weight_cpu(const at::Tensor& weight, int64_t groups) {
  WeightShape shape{1, 1, 1, 1, groups};
  if (weight.dim() == 2) {  // of a linear layer: a 1x1 convolution's
    check_linear_weight(weight, groups, "semisparse::pack_weight");
    shape.out_channels = weight.size(0);
    shape.in_channels_per_group = weight.size(1);
  } else {
    check_plain_weight(weight, "semisparse::pack_weight");
    shape = {weight.size(0), weight.size(1), weight.size(2), weight.size(3), groups};
  }
  shape.validate();
  const at::Tensor contiguous = weight.contiguous();
  const std::vector<uint8_t> bytes = semisparse::pack_weight(contiguous.const_data_ptr<float>(), shape);
  at::Tensor packed = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::memcpy(packed.mutable_data_ptr<uint8_t>(), bytes.data(), bytes.size());
  return packed;
}

at::Tensor unpack_weight_cpu(const at::Tensor& packed) {
  check_packed_bytes(packed, "semisparse::unpack_weight");
  const at::Tensor contiguous = packed.contiguous();
  return unpack(contiguous, inspect_packed(contiguous.const_data_ptr<uint8_t>(), contiguous.numel()).shape);
}

at::Tensor unpack_weight_shaped_cpu(const at::Tensor& packed, at::IntArrayRef weight_shape, int64_t groups) {
  check_packed_weight(packed, weight_shape, "semisparse::unpack_weight.shaped");
  const at::Tensor contiguous = packed.contiguous();
  const WeightShape shape = inspect_packed(contiguous.const_data_ptr<uint8_t>(), contiguous.numel()).shape;
  const std::array<int64_t, 4> found{shape.out_channels, shape.in_channels_per_group, shape.kernel_h,
                                     shape.kernel_w};
  TORCH_CHECK(weight_shape.equals(found) && shape.groups == groups,
              "semisparse::unpack_weight.shaped: `packed` holds a weight of shape ", at::IntArrayRef(found),
              " with ", shape.groups, " groups, but `weight_shape` says ", weight_shape, " and `groups` ",
              groups);
  return unpack(contiguous, shape);
}

// Bytes have no gradient: packing a parameter that requires one is allowed, and cuts the graph.
at::Tensor pack_weight_autograd(const at::Tensor& weight, int64_t groups) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("semisparse::pack_weight", "")
                             .typed<decltype(pack_weight_autograd)>();
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(weight, groups);
}

}  // namespace semisparse::ops
