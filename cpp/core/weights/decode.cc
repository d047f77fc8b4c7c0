// SPDX-License-Identifier: Apache-2.0
#include "core/weights/decode.h"

#include <algorithm>
#include <cstddef>

#include "core/base/checksum.h"
#include "core/base/error.h"

namespace semisparse {
namespace {

constexpr const char* kRemedy =
    " Pack the weight again with semisparse.pack_weight, or fetch the file again.";

int64_t pattern_bytes(const WeightShape& shape) {
  return (shape.taps() + 7) / 8;
}

// Bytes of the whole tensor as the header's counts imply it.
uint64_t implied_size(const PackedHeader& h) {
  const WeightShape shape = header_shape(h);
  if (h.layout == kDense) return sizeof(PackedHeader) + uint64_t{4} * static_cast<uint64_t>(shape.elements());
  uint64_t n = uint64_t{2} * h.out_channels + uint64_t{2} * h.runs + h.kernels;
  n = n * h.index_bytes + uint64_t{h.patterns} * static_cast<uint64_t>(pattern_bytes(shape));
  n = (n + 3) / 4 * 4;
  return sizeof(PackedHeader) + n + uint64_t{4} * h.nonzeros;
}

}  // namespace

void WeightShape::validate() const {
  check(out_channels > 0 && in_channels_per_group > 0 && kernel_h > 0 && kernel_w > 0 && groups > 0,
        "weight shape (", out_channels, ", ", in_channels_per_group, ", ", kernel_h, ", ", kernel_w,
        ") with groups=", groups, ": every size and groups must be at least 1.");
  check(out_channels % groups == 0, "weight has ", out_channels, " output channels, which groups=", groups,
        " does not divide: choose groups so that it divides both channel counts.");
  const int64_t limit = int64_t{1} << 31;
  check(kernel_h < limit && kernel_w < limit && kernel_h * kernel_w <= kMaxTaps, "kernel of ", kernel_h,
        " x ", kernel_w, " taps: at most ", kMaxTaps, " taps are supported.");
  check(out_channels < limit && in_channels_per_group < limit && groups < limit &&
            out_channels <= kMaxElements / in_channels_per_group / taps() &&
            in_channels_per_group * groups < limit,
        "weight shape (", out_channels, ", ", in_channels_per_group, ", ", kernel_h, ", ", kernel_w,
        "): at most ", kMaxElements, " weights are supported.");
}

WeightShape header_shape(const PackedHeader& h) {
  return {h.out_channels, h.in_channels_per_group, h.kernel_h, h.kernel_w, h.groups};
}

PackedHeader read_header(const uint8_t* bytes, size_t size) {
  check(size >= sizeof(PackedHeader), "packed weight has ", size, " bytes, expected at least the ",
        sizeof(PackedHeader), " of its header: it is truncated or not a packed weight.", kRemedy);
  PackedHeader h;
  std::memcpy(&h, bytes, sizeof h);
  check(std::equal(h.magic, h.magic + 4, kMagic),
        "packed weight does not begin with 'SSPW': this is not a tensor made by semisparse.pack_weight.",
        kRemedy);
  check(h.version == kVersion, "packed weight has format version ", h.version, ", this build reads version ",
        kVersion,
        h.version > kVersion ? ": update semisparse, or pack the weight with this version."
                             : ": pack it again.");
  check(h.dtype == kFloat32, "packed weight has dtype code ", int{h.dtype}, ", this build knows ",
        int{kFloat32}, " (float32).", kRemedy);
  check(h.layout == kDense || h.layout == kPatterns, "packed weight has layout code ", int{h.layout},
        ", expected 0 (dense) or 1 (patterns).", kRemedy);
  check(h.index_bytes == 2 || h.index_bytes == 4, "packed weight has ", int{h.index_bytes},
        "-byte indices, expected 2 or 4.", kRemedy);
  check(h.reserved[0] == 0 && h.reserved[1] == 0 && h.reserved[2] == 0,
        "packed weight has non-zero reserved bytes in its header.", kRemedy);
  const WeightShape shape = header_shape(h);
  shape.validate();
  const uint64_t kernels = static_cast<uint64_t>(shape.out_channels * shape.in_channels_per_group);
  check(h.kernels <= kernels && h.runs <= h.kernels && h.patterns <= h.kernels &&
            h.nonzeros <= static_cast<uint64_t>(shape.elements()),
        "packed weight counts ", h.patterns, " patterns, ", h.runs, " runs, ", h.kernels, " kernels, ",
        h.nonzeros, " weights, which its shape cannot have.", kRemedy);
  check(h.size == implied_size(h) && h.size == size, "packed weight has ", size, " bytes, its header says ",
        h.size, " and its counts imply ", implied_size(h), ": it is truncated or damaged.", kRemedy);
  return h;
}

void verify_checksum(const uint8_t* bytes, size_t size, const PackedHeader& h) {
  Crc64 crc;
  crc.add(bytes, offsetof(PackedHeader, checksum));
  crc.add(bytes + sizeof(PackedHeader), size - sizeof(PackedHeader));
  check(crc.value() == h.checksum, "packed weight is damaged: its checksum is ", crc.value(), ", expected ",
        h.checksum, ".", kRemedy);
}

PayloadView checked_payload(const uint8_t* bytes, size_t size) {
  PayloadView view{};
  view.header = read_header(bytes, size);
  const PackedHeader& h = view.header;
  verify_checksum(bytes, size, h);
  const uint8_t* at = bytes + sizeof(PackedHeader);
  if (h.layout == kDense) {
    view.weights = at;
    return view;
  }
  const auto damaged = [](const auto&... what) {
    fail("packed weight is inconsistent: ", what..., ".", kRemedy);
  };
  const WeightShape shape = header_shape(h);
  const size_t ib = h.index_bytes;
  view.order = at;
  view.run_counts = view.order + ib * h.out_channels;
  view.run_patterns = view.run_counts + ib * h.out_channels;
  view.run_lengths = view.run_patterns + ib * h.runs;
  view.channels = view.run_lengths + ib * h.runs;
  view.patterns = view.channels + ib * h.kernels;
  view.weights = bytes + size - size_t{4} * h.nonzeros;

  const int64_t per_group = shape.out_channels / shape.groups;
  std::vector<bool> seen(h.out_channels, false);
  for (uint32_t i = 0; i < h.out_channels; ++i) {
    const uint32_t filter = view.index(view.order, i);
    if (filter >= h.out_channels || seen[filter] || filter / per_group != i / per_group)
      damaged("filter ", filter, " at position ", i, " of the filter order");
    seen[filter] = true;
  }
  const size_t pb = static_cast<size_t>(pattern_bytes(shape));
  std::vector<uint32_t> pattern_size(h.patterns);
  for (uint32_t p = 0; p < h.patterns; ++p) {
    for (size_t b = 0; b < pb; ++b) pattern_size[p] += __builtin_popcount(view.patterns[p * pb + b]);
    const int spare = static_cast<int>(8 * pb - static_cast<size_t>(shape.taps()));
    if (pattern_size[p] == 0 || view.patterns[p * pb + pb - 1] >> (8 - spare) != 0)
      damaged("pattern ", p, " is empty or names a tap outside the kernel");
  }
  uint64_t run = 0, kernel = 0, nonzeros = 0;
  for (uint32_t i = 0; i < h.out_channels; ++i) {
    const uint32_t runs = view.index(view.run_counts, i);
    if (runs > h.runs - run) damaged("filter at position ", i, " has ", runs, " runs");
    std::vector<bool> used(h.in_channels_per_group, false);
    int64_t last_pattern = -1;
    for (uint32_t r = 0; r < runs; ++r, ++run) {
      const uint32_t pattern = view.index(view.run_patterns, run), length = view.index(view.run_lengths, run);
      if (pattern >= h.patterns || pattern <= last_pattern || length == 0 || length > h.kernels - kernel)
        damaged("run ", run, " has pattern ", pattern, " and length ", length);
      last_pattern = pattern;
      nonzeros += uint64_t{length} * pattern_size[pattern];
      for (uint32_t k = 0; k < length; ++k, ++kernel) {
        const uint32_t channel = view.index(view.channels, kernel);
        if (channel >= h.in_channels_per_group || used[channel] ||
            (k > 0 && channel <= view.index(view.channels, kernel - 1)))
          damaged("kernel ", kernel, " has channel ", channel);
        used[channel] = true;
      }
    }
  }
  if (run != h.runs || kernel != h.kernels || nonzeros != h.nonzeros)
    damaged("it holds ", run, " runs, ", kernel, " kernels, ", nonzeros,
            " weights, but its header counts others");
  return view;
}

std::vector<uint32_t> stored_order(const PayloadView& view) {
  std::vector<uint32_t> order(view.header.out_channels);
  for (uint32_t i = 0; i < order.size(); ++i)
    order[i] = view.header.layout == kDense ? i : view.index(view.order, i);
  return order;
}

void visit_kernels(const PayloadView& view, KernelVisitor& visitor) {
  const PackedHeader& h = view.header;
  const int64_t taps = header_shape(h).taps();
  if (h.layout == kDense) {
    std::vector<uint16_t> nonzero(static_cast<size_t>(taps));
    std::vector<float> weights(static_cast<size_t>(taps));
    size_t at = 0;
    for (int64_t f = 0; f < h.out_channels; ++f) {
      for (int64_t c = 0; c < h.in_channels_per_group; ++c) {
        int count = 0;
        for (int64_t t = 0; t < taps; ++t, ++at) {
          float w;
          std::memcpy(&w, view.weights + 4 * at, 4);
          if (w == 0.0f) continue;
          nonzero[static_cast<size_t>(count)] = static_cast<uint16_t>(t);
          weights[static_cast<size_t>(count++)] = w;
        }
        if (count > 0) visitor.kernel(f, f, c, nonzero.data(), count, weights.data());
      }
    }
    return;
  }
  const size_t pb = static_cast<size_t>(pattern_bytes(header_shape(h)));
  std::vector<std::vector<uint16_t>> pattern_taps(h.patterns);
  for (uint32_t p = 0; p < h.patterns; ++p)
    for (int64_t t = 0; t < taps; ++t)
      if (view.patterns[p * pb + static_cast<size_t>(t / 8)] >> (t % 8) & 1)
        pattern_taps[p].push_back(static_cast<uint16_t>(t));
  std::vector<float> weights(static_cast<size_t>(taps));
  size_t run = 0, kernel = 0;
  const uint8_t* from = view.weights;
  for (uint32_t i = 0; i < h.out_channels; ++i) {
    const uint32_t filter = view.index(view.order, i), runs = view.index(view.run_counts, i);
    for (uint32_t r = 0; r < runs; ++r, ++run) {
      const auto& list = pattern_taps[view.index(view.run_patterns, run)];
      const uint32_t length = view.index(view.run_lengths, run);
      for (uint32_t k = 0; k < length; ++k, ++kernel) {
        std::memcpy(weights.data(), from, 4 * list.size());
        from += 4 * list.size();
        visitor.kernel(filter, i, view.index(view.channels, kernel), list.data(),
                       static_cast<int>(list.size()), weights.data());
      }
    }
  }
}

}  // namespace semisparse
