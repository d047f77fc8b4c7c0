// SPDX-License-Identifier: Apache-2.0
#include "checks.h"

#include "core/conv2d/conv2d.h"

namespace semisparse::ops {
namespace {

// Geometry beyond this is a mistake, and below it sums and products of three numbers do not overflow.
constexpr int64_t kMaximum = int64_t{1} << 30;

bool given(const OptionalTensor& tensor) {
  return tensor.has_value() && tensor->defined();
}

void check_device(const at::Tensor& tensor, const char* name, const at::Tensor& input, const char* op) {
  TORCH_CHECK(tensor.device() == input.device(), op, ": `", name, "` is on ", tensor.device(),
              " but `input` is on ", input.device(), "; move one of them with .to(device)");
}

void check_type(const at::Tensor& tensor, const char* name, at::ScalarType type, const char* op) {
  const bool half = type == at::kHalf;
  TORCH_CHECK(tensor.scalar_type() == type, op, ": `", name, "` must be ",
              half ? "float16, as `input` is" : "float32", ", got ", tensor.scalar_type(),
              "; convert it with ", half ? ".half()" : ".float()");
}

void check_input_type(const at::Tensor& input, const char* op) {
  TORCH_CHECK(input.scalar_type() == at::kFloat || input.scalar_type() == at::kHalf, op,
              ": `input` must be float32 or float16, got ", input.scalar_type(),
              "; convert it with .float()");
}

// One value for each output channel (of a convolution) or feature (of a linear layer), or absent.
void check_per_channel(const OptionalTensor& optional, const char* name, const at::Tensor& input,
                       const c10::SymInt& channels, const char* op, const char* channel = "channel") {
  if (!given(optional)) return;
  const at::Tensor& tensor = *optional;
  check_device(tensor, name, input, op);
  check_type(tensor, name, element_type(input), op);
  TORCH_CHECK(tensor.dim() == 1, op, ": `", name, "` must have one value per output ", channel, ", shape (",
              channels, "), got shape ", tensor.sym_sizes(), "; flatten it with .reshape(-1)");
  TORCH_SYM_CHECK(tensor.sym_size(0).sym_eq(channels), op, ": `", name, "` must have one value per output ",
                  channel, ", shape (", channels, "), got shape ", tensor.sym_sizes());
}

void check_pair(at::IntArrayRef pair, const char* name, int64_t minimum, const char* op) {
  TORCH_CHECK(pair.size() == 2, op, ": `", name, "` must be one number or (vertical, horizontal), got ",
              pair);
  for (int64_t value : pair) {
    TORCH_CHECK(value >= minimum && value <= kMaximum, op, ": `", name, "` must be at least ", minimum,
                " (and at most 2^30), got ", pair);
  }
}

// (N, C, H, W) float32 or float16, H and W of at most kMaximum.
void check_image(const at::Tensor& input, const char* op) {
  check_input_type(input, op);
  TORCH_CHECK(input.dim() == 4, op, ": `input` must have shape (N, C, H, W), got shape ", input.sym_sizes(),
              input.dim() == 3 ? "; add the batch dimension with .unsqueeze(0)" : "");
  TORCH_SYM_CHECK(input.sym_size(2).sym_le(kMaximum).sym_and(input.sym_size(3).sym_le(kMaximum)), op,
                  ": `input` may be at most 2^30 high and wide, got shape ", input.sym_sizes());
}

// Number of pooling windows along one axis.
c10::SymInt pooled_size(const c10::SymInt& input, int64_t kernel, int64_t stride, int64_t padding,
                        int64_t dilation, bool ceil_mode, const char* axis) {
  const int64_t extent = (kernel - 1) * dilation + 1;
  const c10::SymInt room = input + 2 * padding - extent + (ceil_mode ? stride - 1 : 0);
  TORCH_SYM_CHECK(input.sym_ge(1).sym_and(room.sym_ge(0)),
                  "semisparse::max_pool2d: `input` is too small: its ", axis, " is ", input,
                  ", with padding ", input + 2 * padding, ", but the (dilated) kernel covers ", extent,
                  "; give a larger input or a smaller kernel");
  const c10::SymInt last = room / stride;
  // In ceil mode the last window may stick out, but must start inside the image or the padding before it. A
  // minimum and not a branch: which side a symbolic size is on need not be known.
  return (ceil_mode ? last.min((input + padding - 1) / stride) : last) + 1;
}

c10::SymInt output_size(const c10::SymInt& input, const c10::SymInt& kernel, int64_t stride, int64_t padding,
                        int64_t dilation, const char* axis) {
  const c10::SymInt padded = input + 2 * padding;
  const c10::SymInt extent = (kernel - 1) * dilation + 1;
  TORCH_SYM_CHECK(padded.sym_ge(extent), "semisparse::conv2d: `input` is too small: its ", axis, " is ",
                  input, ", with padding ", padded, ", but the (dilated) kernel covers ", extent,
                  "; give a larger input or more padding");
  return (padded - extent) / stride + 1;
}

}  // namespace

at::ScalarType element_type(const at::Tensor& input) {
  return input.scalar_type() == at::kHalf ? at::kHalf : at::kFloat;
}

SymShape4 check_plain_weight(const at::Tensor& weight, const char* op, at::ScalarType type) {
  check_type(weight, "weight", type, op);
  TORCH_CHECK(weight.dim() == 4, op, ": `weight` must have shape (OC, IC/groups, KH, KW), got shape ",
              weight.sym_sizes());
  SymShape4 shape;
  for (int i = 0; i < 4; ++i) {
    shape[i] = weight.sym_size(i);
    TORCH_SYM_CHECK(shape[i].sym_ge(1), op,
                    ": `weight` must have shape (OC, IC/groups, KH, KW), all at least 1, got ",
                    weight.sym_sizes());
  }
  return shape;
}

void check_linear_weight(const at::Tensor& weight, int64_t groups, const char* op) {
  check_type(weight, "weight", at::kFloat, op);
  TORCH_CHECK(weight.dim() == 2 && weight.size(0) >= 1 && weight.size(1) >= 1, op,
              ": `weight` of a linear layer must have shape (OUT, IN), both at least 1, got shape ",
              weight.sizes());
  TORCH_CHECK(groups == 1, op, ": `weight` of shape ", weight.sizes(),
              " is a linear layer's, which has no groups, but `groups` is ", groups);
}

void check_packed_bytes(const at::Tensor& packed, const char* op) {
  TORCH_CHECK(
      packed.scalar_type() == at::kByte && packed.dim() == 1, op,
      ": `packed` must be the one-dimensional uint8 tensor that semisparse::pack_weight returns, got ",
      packed.scalar_type(), " of shape ", packed.sym_sizes(), "; pack the weight first");
}

SymShape4 check_packed_weight(const at::Tensor& packed, at::IntArrayRef weight_shape, const char* op) {
  check_packed_bytes(packed, op);
  TORCH_CHECK(weight_shape.size() == 4, op, ": `weight_shape` must be (OC, IC/groups, KH, KW), got ",
              weight_shape);
  for (int64_t size : weight_shape) {
    TORCH_CHECK(size >= 1 && size <= kMaximum, op,
                ": `weight_shape` must be (OC, IC/groups, KH, KW), all at least 1 (and at most 2^30), got ",
                weight_shape);
  }
  return {weight_shape[0], weight_shape[1], weight_shape[2], weight_shape[3]};
}

SymShape4 check_conv2d(const Conv2dArguments& arguments, const at::Tensor& weight,
                       const SymShape4& weight_shape) {
  const at::Tensor& input = arguments.input;
  const at::IntArrayRef stride = arguments.stride, padding = arguments.padding, dilation = arguments.dilation;
  const int64_t groups = arguments.groups;
  const c10::SymInt& channels = weight_shape[0];

  parse_activation(arguments.activation);  // throws, naming the known ones
  check_image(input, "semisparse::conv2d");
  check_device(weight, "weight", input, "semisparse::conv2d");
  check_pair(stride, "stride", 1, "semisparse::conv2d");
  check_pair(padding, "padding", 0, "semisparse::conv2d");
  check_pair(dilation, "dilation", 1, "semisparse::conv2d");

  TORCH_CHECK(groups >= 1 && groups <= kMaximum, "semisparse::conv2d: `groups` must be at least 1, got ",
              groups);
  TORCH_SYM_CHECK((channels % groups).sym_eq(0),
                  "semisparse::conv2d: the number of output channels must be a multiple "
                  "of `groups`, got ",
                  channels, " output channels and ", groups, " groups");
  TORCH_SYM_CHECK(input.sym_size(1).sym_eq(weight_shape[1] * groups), "semisparse::conv2d: `input` has ",
                  input.sym_size(1), " channels, but a weight of shape (", weight_shape[0], ", ",
                  weight_shape[1], ", ", weight_shape[2], ", ", weight_shape[3], ") with ", groups,
                  " groups expects ", weight_shape[1] * groups);

  const c10::SymInt out_h =
      output_size(input.sym_size(2), weight_shape[2], stride[0], padding[0], dilation[0], "height");
  const c10::SymInt out_w =
      output_size(input.sym_size(3), weight_shape[3], stride[1], padding[1], dilation[1], "width");
  const SymShape4 output{input.sym_size(0), channels, out_h, out_w};

  check_per_channel(arguments.bias, "bias", input, channels, "semisparse::conv2d");
  check_per_channel(arguments.fill, "fill", input, channels, "semisparse::conv2d");
  if (given(arguments.mask)) {
    const at::Tensor& mask = *arguments.mask;
    check_device(mask, "mask", input, "semisparse::conv2d");
    TORCH_CHECK(mask.scalar_type() == at::kBool,
                "semisparse::conv2d: `mask` must be bool, True = computed, got ", mask.scalar_type(),
                "; convert it with .bool()");
    TORCH_CHECK(mask.dim() == 2,
                "semisparse::conv2d: `mask` must have the output's height and width, shape (", out_h, ", ",
                out_w, "), got shape ", mask.sym_sizes());
    TORCH_SYM_CHECK(mask.sym_size(0).sym_eq(out_h).sym_and(mask.sym_size(1).sym_eq(out_w)),
                    "semisparse::conv2d: `mask` must have the output's height and width, shape (", out_h,
                    ", ", out_w, "), got shape ", mask.sym_sizes(),
                    "; a mask belongs to one input size, resample it for another one");
  }
  if (given(arguments.residual)) {
    const at::Tensor& residual = *arguments.residual;
    check_device(residual, "residual", input, "semisparse::conv2d");
    check_type(residual, "residual", element_type(input), "semisparse::conv2d");
    const auto message = [&] {
      return c10::str("semisparse::conv2d: `residual` must have the output's shape (", output[0], ", ",
                      output[1], ", ", output[2], ", ", output[3], "), got shape ", residual.sym_sizes());
    };
    TORCH_CHECK(residual.dim() == 4, message());
    for (int i = 0; i < 4; ++i) TORCH_SYM_CHECK(residual.sym_size(i).sym_eq(output[i]), message());
  }
  return output;
}

SymShape4 check_max_pool2d(const MaxPool2dArguments& arguments) {
  constexpr const char* op = "semisparse::max_pool2d";
  const at::Tensor& input = arguments.input;
  const at::IntArrayRef kernel = arguments.kernel_size, padding = arguments.padding,
                        dilation = arguments.dilation;
  const at::IntArrayRef stride = arguments.stride.empty() ? kernel : arguments.stride;
  check_image(input, op);
  check_pair(kernel, "kernel_size", 1, op);
  check_pair(stride, "stride", 1, op);
  check_pair(padding, "padding", 0, op);
  check_pair(dilation, "dilation", 1, op);
  TORCH_CHECK(padding[0] <= kernel[0] / 2 && padding[1] <= kernel[1] / 2, op,
              ": `padding` must be at most half of `kernel_size` ", kernel, ", got ", padding);
  const auto size = [&](int axis, const char* name) {
    return pooled_size(input.sym_size(2 + axis), kernel[axis], stride[axis], padding[axis], dilation[axis],
                       arguments.ceil_mode, name);
  };
  return {input.sym_size(0), input.sym_size(1), size(0, "height"), size(1, "width")};
}

c10::SymDimVector check_linear(const LinearArguments& arguments) {
  constexpr const char* op = "semisparse::linear";
  const at::Tensor& input = arguments.input;
  const at::IntArrayRef shape = arguments.weight_shape;
  parse_activation(arguments.activation);  // throws, naming the known ones
  check_packed_bytes(arguments.packed, op);
  TORCH_CHECK(
      shape.size() == 2 && shape[0] >= 1 && shape[0] <= kMaximum && shape[1] >= 1 && shape[1] <= kMaximum, op,
      ": `weight_shape` must be (OUT, IN), both at least 1 (and at most 2^30), got ", shape);
  check_input_type(input, op);
  TORCH_CHECK(input.dim() >= 1, op, ": `input` must have shape (..., IN), got a scalar");
  check_device(arguments.packed, "packed", input, op);
  TORCH_SYM_CHECK(input.sym_size(-1).sym_eq(shape[1]), op, ": `input` of shape ", input.sym_sizes(), " has ",
                  input.sym_size(-1), " features in its last dimension, but a weight of shape ", shape,
                  " expects ", shape[1]);
  check_per_channel(arguments.bias, "bias", input, shape[0], op, "feature");
  c10::SymDimVector output(input.sym_sizes().begin(), input.sym_sizes().end());
  output.back() = shape[0];
  return output;
}

}  // namespace semisparse::ops
