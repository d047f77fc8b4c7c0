// SPDX-License-Identifier: Apache-2.0
// Walks over a packed tensor, checking every number before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/weights/format.h"
#include "core/weights/packed.h"

namespace semisparse {

// Header checks: everything that can be told without the payload.
PackedHeader read_header(const uint8_t* bytes, size_t size);

// Throws unless the checksum over header and payload is right.
void verify_checksum(const uint8_t* bytes, size_t size, const PackedHeader& header);

WeightShape header_shape(const PackedHeader& header);

// Called for every stored kernel: filter (output channel), its position in the stored order, channel, the
// taps of its pattern (count of them) and one weight for each.
class KernelVisitor {
 public:
  virtual ~KernelVisitor() = default;
  virtual void kernel(int64_t filter, int64_t position, int64_t channel, const uint16_t* taps, int count,
                      const float* weights) = 0;
};

// Where the sections of a checked tensor lie; see format.h. In layout dense only the weights.
struct PayloadView {
  PackedHeader header;
  const uint8_t* order;
  const uint8_t* run_counts;
  const uint8_t* run_patterns;
  const uint8_t* run_lengths;
  const uint8_t* channels;
  const uint8_t* patterns;
  const uint8_t* weights;

  uint32_t index(const uint8_t* array, size_t i) const {
    if (header.index_bytes == 2) {
      uint16_t v;
      std::memcpy(&v, array + 2 * i, 2);
      return v;
    }
    uint32_t v;
    std::memcpy(&v, array + 4 * i, 4);
    return v;
  }
};

// Verifies checksum, section sizes and every index of the payload.
PayloadView checked_payload(const uint8_t* bytes, size_t size);

// Output channel at each position of the stored order.
std::vector<uint32_t> stored_order(const PayloadView& view);

// Shows every stored kernel of a checked tensor, in the stored order.
void visit_kernels(const PayloadView& view, KernelVisitor& visitor);

}  // namespace semisparse
