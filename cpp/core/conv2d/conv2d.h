// SPDX-License-Identifier: Apache-2.0
// The operator: a 2-D convolution that skips masked im2col columns and zero weights.
//   y[n,o,p] = a( m[p] * (conv(x,W)[n,o,p] + bias[o]) + (1 - m[p]) * fill[o] + residual[n,o,p] )
// for output pixel p, output channel o, activation a.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/half.h"
#include "core/base/parallel.h"
#include "core/base/tensor.h"
#include "core/weights/packed.h"

namespace semisparse {

enum class Activation { none, relu, relu6, silu, leaky_relu, hardswish, sigmoid };

// Throws Error naming the known activations. leaky_relu has slope 0.01.
Activation parse_activation(std::string_view name);

struct Conv2dGeometry {
  int64_t batch = 1;
  int64_t in_h = 0, in_w = 0;
  WeightShape weight;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_h = 0, pad_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;

  int64_t in_channels() const { return weight.in_channels_per_group * weight.groups; }
  int64_t out_channels() const { return weight.out_channels; }
  int64_t out_h() const { return (in_h + 2 * pad_h - dilation_h * (weight.kernel_h - 1) - 1) / stride_h + 1; }
  int64_t out_w() const { return (in_w + 2 * pad_w - dilation_w * (weight.kernel_w - 1) - 1) / stride_w + 1; }
  // Positive sizes, an output of at least 1x1, no overflow; batch may be 0.
  void validate() const;
};

// E, of input, residual and output: float or Half.
template <class E>
struct BasicConv2dOperands {
  BasicConstTensor4<E> input;   // (N, C, H, W)
  const float* bias = nullptr;  // OC floats or null
  const float* fill = nullptr;  // OC floats or null (zeros); only looked at where the mask is false
  const E* residual = nullptr;  // contiguous (N, OC, OH, OW) or null
  E* output = nullptr;          // contiguous (N, OC, OH, OW); every element is written
  Activation activation = Activation::none;
};
using Conv2dOperands = BasicConv2dOperands<float>;
using HalfConv2dOperands = BasicConv2dOperands<Half>;

// Weights made ready for this machine's kernels, once, from the portable bytes. Keep one beside each packed
// tensor that is used again: building it reads and checks every byte. Safe to use from several threads.
class PackedWeight {
 public:
  PackedWeight();
  ~PackedWeight();
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;
  size_t bytes() const;  // memory held at present
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// `mask`: out_h*out_w bytes, 0 = skipped, or null = all computed. `packed`/`size`: portable bytes; read only
// when `weight` has not yet been built for this geometry. The result does not depend on parallel.threads().
void conv2d(const Conv2dGeometry& geometry, PackedWeight& weight, const uint8_t* packed, size_t size,
            const uint8_t* mask, const Conv2dOperands& operands, Parallel& parallel);

// The same from plain weights, contiguous (OC, IC/groups, KH, KW), arranged anew at every call.
void conv2d(const Conv2dGeometry& geometry, const float* weight, const uint8_t* mask,
            const Conv2dOperands& operands, Parallel& parallel);

// Both for float16 tensors: rounded once, at the end. Where the processor has such arithmetic and it is
// faster than float32 with another algorithm, weights are rounded to half precision too, and products are
// summed in it, at most some 64 at a time; sums of these, and everything after, are float32. |values| beyond
// 65504 are infinite.
void conv2d(const Conv2dGeometry& geometry, PackedWeight& weight, const uint8_t* packed, size_t size,
            const uint8_t* mask, const HalfConv2dOperands& operands, Parallel& parallel);
void conv2d(const Conv2dGeometry& geometry, const float* weight, const uint8_t* mask,
            const HalfConv2dOperands& operands, Parallel& parallel);

// float64 reference of the same formula, plain loops; for tests. `weight` dense.
void conv2d_reference(const Conv2dGeometry& geometry, const float* weight, const uint8_t* mask,
                      const Conv2dOperands& operands);

// Name of the kernel family in use, e.g. "row_run_f32_4x6v16_avx512". SEMISPARSE_ISA=scalar|avx2|avx512|neon
// in the environment chooses another one than the best; an ISA the machine lacks is an Error.
std::string kernel_name();

}  // namespace semisparse
