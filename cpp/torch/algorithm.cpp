// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/algorithm.h"

#include "checks.h"
#include "core/base/windows.h"
#include "core/weights/packed.h"
#include "core/weights/prepare.h"

namespace semisparse::ops {

std::string force_algorithm(std::string_view name) {
  return algorithm_name(semisparse::force_algorithm(parse_algorithm(name)));
}

void prefer_algorithm(const at::Tensor& packed, at::IntArrayRef input_size, std::string_view name) {
  check_packed_bytes(packed, "semisparse::prefer_algorithm");
  const at::Tensor bytes = packed.contiguous();
  const PackedInfo info = inspect_packed(bytes.const_data_ptr<uint8_t>(), bytes.numel());
  semisparse::prefer_algorithm(info.checksum, input_size[0], input_size[1], parse_algorithm(name));
}

std::string chosen_algorithm(const at::Tensor& packed, at::IntArrayRef input_size, at::IntArrayRef stride,
                             at::IntArrayRef padding, at::IntArrayRef dilation, const OptionalTensor& mask,
                             bool half) {
  check_packed_bytes(packed, "semisparse::chosen_algorithm");
  const at::Tensor bytes = packed.contiguous();
  const PackedInfo info = inspect_weights(bytes.const_data_ptr<uint8_t>(), bytes.numel());
  Conv2dGeometry g;
  g.weight = info.shape;
  g.in_h = input_size[0];
  g.in_w = input_size[1];
  place_windows(g, stride, padding, dilation);
  g.validate();
  at::Tensor kept;
  if (mask.has_value() && mask->defined()) {
    TORCH_CHECK(mask->scalar_type() == at::kBool && mask->dim() == 2 && mask->size(0) == g.out_h() &&
                    mask->size(1) == g.out_w(),
                "semisparse::chosen_algorithm: `mask` must be bool (", g.out_h(), ", ", g.out_w(), "); got ",
                mask->scalar_type(), " ", mask->sizes());
    kept = mask->contiguous();
  }
  const auto* const bytes_kept =
      kept.defined() ? static_cast<const uint8_t*>(kept.const_data_ptr()) : nullptr;
  if (half)
    if (const auto algorithm = decide_half_algorithm(g, info, bytes_kept)) return algorithm_name(*algorithm);
  return algorithm_name(decide_algorithm(g, info, bytes_kept));
}

}  // namespace semisparse::ops
