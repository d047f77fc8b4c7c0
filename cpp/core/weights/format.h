// SPDX-License-Identifier: Apache-2.0
// The bytes of a packed weight tensor, version 1. Little-endian, no tile size of any instruction set in it.
//
// After PatDNN's filter-kernel-weight (FKW) layout (ASPLOS'20, section 5.3): a kernel's non-zero positions
// (its *pattern*, a bit set over the taps) are stored once for the tensor; inside a filter the kernels are
// sorted by pattern, so that a pattern number is stored once for a *run* of kernels, and a kernel costs its
// channel number and its weights. Any sparsity fits: an unstructured tensor simply has many patterns and
// short runs.
//
//   header, 64 bytes (PackedHeader)
//   layout dense:    OC * IC/groups * KH * KW floats
//   layout patterns: i = unsigned integer of index_bytes (2 or 4) bytes
//     i   order[OC]                 order[position] = output channel; filters of one group stay together,
//     those that
//                                   use the same rows side by side (filter_order.h)
//     i   run_counts[OC]            runs of each filter, in that order
//     i   run_patterns[runs]        pattern number; strictly increasing inside a filter
//     i   run_lengths[runs]         kernels in the run, at least 1
//     i   channels[kernels]         input channel inside the group; strictly increasing inside a run
//     u8  patterns[patterns][(KH*KW + 7) / 8]   bit t % 8 of byte t / 8 = tap t; not empty
//     zero bytes up to a multiple of 4
//     f32 weights[nonzeros]         of each kernel, taps in increasing order
//
// The checksum is the CRC-64 of all bytes but its own eight, so that no changed byte goes unnoticed; on top
// of it every number is checked before it is used, for whoever forges a checksum.
#pragma once

#include <cstdint>

namespace semisparse {

struct PackedHeader {
  uint8_t magic[4];
  uint16_t version;
  uint8_t dtype;   // kFloat32
  uint8_t layout;  // kDense, kPatterns
  uint8_t index_bytes;
  uint8_t reserved[3];  // zero
  uint32_t out_channels, in_channels_per_group, kernel_h, kernel_w, groups;
  uint32_t patterns, runs, kernels;  // 0 in layout dense
  uint32_t nonzeros;
  uint64_t size;  // bytes of the whole tensor
  uint64_t checksum;
};
static_assert(sizeof(PackedHeader) == 64, "the header is written as it lies in memory");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian port needs byte swaps here");

constexpr uint8_t kMagic[4] = {'S', 'S', 'P', 'W'};
constexpr uint16_t kVersion = 1;
constexpr uint8_t kFloat32 = 1;
constexpr uint8_t kDense = 0, kPatterns = 1;
constexpr int64_t kMaxTaps = 4096;
constexpr int64_t kMaxElements = int64_t{1} << 30;

}  // namespace semisparse
