// SPDX-License-Identifier: Apache-2.0
#include "core/base/error.h"
#include "core/conv2d/conv2d.h"

namespace semisparse {

Activation parse_activation(std::string_view name) {
  static constexpr std::pair<std::string_view, Activation> known[] = {{"none", Activation::none},
                                                                      {"relu", Activation::relu},
                                                                      {"relu6", Activation::relu6},
                                                                      {"silu", Activation::silu},
                                                                      {"leaky_relu", Activation::leaky_relu},
                                                                      {"hardswish", Activation::hardswish},
                                                                      {"sigmoid", Activation::sigmoid}};
  for (const auto& entry : known)
    if (entry.first == name) return entry.second;
  fail("activation '", name,
       "' is unknown: choose one of none, relu, relu6, silu, leaky_relu (slope 0.01), hardswish, sigmoid.");
}

void Conv2dGeometry::validate() const {
  weight.validate();
  // Bounds far above any real layer keep every product below within int64, and offsets of a plane within
  // int32.
  constexpr int64_t limit = int64_t{1} << 20, plane_limit = int64_t{1} << 30;
  check(batch >= 0 && batch < (int64_t{1} << 31), "batch of ", batch, " images: expected 0 or more.");
  check(in_h >= 1 && in_w >= 1 && in_h < limit && in_w < limit, "input image of ", in_h, " x ", in_w,
        ": each side must be 1 to ", limit - 1, " pixels.");
  check(stride_h >= 1 && stride_w >= 1 && stride_h < limit && stride_w < limit, "stride (", stride_h, ", ",
        stride_w, "): each must be at least 1.");
  check(pad_h >= 0 && pad_w >= 0 && pad_h < limit && pad_w < limit, "padding (", pad_h, ", ", pad_w,
        "): each must be 0 or more.");
  check(dilation_h >= 1 && dilation_w >= 1 && dilation_h < limit && dilation_w < limit, "dilation (",
        dilation_h, ", ", dilation_w, "): each must be at least 1.");
  const int64_t reach_h = dilation_h * (weight.kernel_h - 1) + 1,
                reach_w = dilation_w * (weight.kernel_w - 1) + 1;
  check(in_h + 2 * pad_h >= reach_h && in_w + 2 * pad_w >= reach_w, "input image of ", in_h, " x ", in_w,
        " with padding (", pad_h, ", ", pad_w, ") is smaller than the kernel's reach of ", reach_h, " x ",
        reach_w, ": use a larger image or more padding.");
  check((in_h + 2 * pad_h) * (in_w + 2 * pad_w) < plane_limit, "input plane of ", in_h + 2 * pad_h, " x ",
        in_w + 2 * pad_w, " pixels (padding included) is too large: at most ", plane_limit - 1, ".");
}

}  // namespace semisparse
