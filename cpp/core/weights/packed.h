// SPDX-License-Identifier: Apache-2.0
// The portable packed format of convolution weights: what is stored in files and passed between programs.
// See format.h for the bytes. All functions throw semisparse::Error on bad input and never read outside the
// buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace semisparse {

// Shape (OC, IC/groups, KH, KW) of a convolution's weight and its number of groups.
struct WeightShape {
  int64_t out_channels = 0;
  int64_t in_channels_per_group = 0;
  int64_t kernel_h = 0;
  int64_t kernel_w = 0;
  int64_t groups = 1;

  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t elements() const { return out_channels * in_channels_per_group * taps(); }
  void validate() const;  // positive sizes, OC divisible by groups, no overflow
};

struct PackedInfo {
  WeightShape shape;
  int64_t nonzeros = 0;   // stored weights
  int64_t kernels = 0;    // (filter, channel) pairs with at least one stored weight; all of them if `dense`
  int64_t patterns = 0;   // distinct non-empty kernel shapes
  bool dense = false;     // stored without indices because that is smaller
  uint64_t checksum = 0;  // of the packed bytes: tells weights apart
  // Rows of im2col that blocks of 4 filters use, a row once for each block. inspect_packed, which does not
  // read the weights, takes it that 4 filters share each; inspect_weights (prepare.h) counts.
  int64_t block_rows = 0;

  bool every_kernel() const { return kernels == shape.out_channels * shape.in_channels_per_group; }
};

// `weight`: elements() floats, contiguous in (OC, IC/groups, KH, KW) order. Every weight whose bits are not
// those of +0.0 is stored, so unpack_weight is an exact inverse (also of -0.0 and NaN payloads).
std::vector<uint8_t> pack_weight(const float* weight, const WeightShape& shape);

// Reads and checks everything that `inspect` can know without the payload: magic, version, sizes, header
// checksum.
PackedInfo inspect_packed(const uint8_t* bytes, size_t size);

// Writes inspect_packed(...).shape.elements() floats. Checks every byte of the payload (checksum and bounds).
void unpack_weight(const uint8_t* bytes, size_t size, float* weight);

}  // namespace semisparse
