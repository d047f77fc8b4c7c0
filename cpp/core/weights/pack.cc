// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <string>

#include "core/base/checksum.h"
#include "core/base/error.h"
#include "core/weights/decode.h"
#include "core/weights/filter_order.h"
#include "core/weights/format.h"
#include "core/weights/packed.h"

namespace semisparse {
namespace {

bool stored(float w) {
  uint32_t bits;
  std::memcpy(&bits, &w, 4);
  return bits != 0;
}

struct Kernel {
  uint32_t pattern, channel;
};

class Writer {
 public:
  Writer(std::vector<uint8_t>* bytes, int index_bytes) : bytes_(bytes), index_bytes_(index_bytes) {}
  void index(size_t value) {
    const uint32_t v = static_cast<uint32_t>(value);
    raw(&v, static_cast<size_t>(index_bytes_));  // little-endian: the low bytes come first
  }
  void raw(const void* data, size_t size) {
    const uint8_t* p = static_cast<const uint8_t*>(data);
    bytes_->insert(bytes_->end(), p, p + size);
  }

 private:
  std::vector<uint8_t>* bytes_;
  int index_bytes_;
};

void seal(std::vector<uint8_t>* bytes, PackedHeader h) {
  h.size = bytes->size();
  std::memcpy(bytes->data(), &h, sizeof h);
  Crc64 crc;
  crc.add(bytes->data(), offsetof(PackedHeader, checksum));
  crc.add(bytes->data() + sizeof h, bytes->size() - sizeof h);
  h.checksum = crc.value();
  std::memcpy(bytes->data(), &h, sizeof h);
}

}  // namespace

std::vector<uint8_t> pack_weight(const float* weight, const WeightShape& shape) {
  shape.validate();
  const size_t oc = static_cast<size_t>(shape.out_channels),
               ic = static_cast<size_t>(shape.in_channels_per_group);
  const size_t taps = static_cast<size_t>(shape.taps()), pattern_bytes = (taps + 7) / 8;

  // Patterns are numbered in order of first appearance, which is the same on every machine.
  std::map<std::string, uint32_t> numbers;
  std::vector<const std::string*> patterns;
  std::vector<std::vector<Kernel>> filters(oc);
  size_t kernels = 0, runs = 0, nonzeros = 0;
  std::string bits(pattern_bytes, '\0');
  for (size_t f = 0; f < oc; ++f) {
    for (size_t c = 0; c < ic; ++c) {
      const float* w = weight + (f * ic + c) * taps;
      std::fill(bits.begin(), bits.end(), '\0');
      size_t count = 0;
      for (size_t t = 0; t < taps; ++t) {
        if (!stored(w[t])) continue;
        bits[t / 8] = static_cast<char>(bits[t / 8] | 1 << (t % 8));
        ++count;
      }
      if (count == 0) continue;
      const auto at = numbers.emplace(bits, static_cast<uint32_t>(numbers.size()));
      if (at.second) patterns.push_back(&at.first->first);
      filters[f].push_back({at.first->second, static_cast<uint32_t>(c)});
      nonzeros += count;
    }
    std::stable_sort(filters[f].begin(), filters[f].end(),
                     [](const Kernel& a, const Kernel& b) { return a.pattern < b.pattern; });
    kernels += filters[f].size();
    for (size_t k = 0; k < filters[f].size(); ++k)
      runs += k == 0 || filters[f][k].pattern != filters[f][k - 1].pattern;
  }

  PackedHeader h{};
  std::memcpy(h.magic, kMagic, sizeof h.magic);
  h.version = kVersion;
  h.dtype = kFloat32;
  h.out_channels = static_cast<uint32_t>(oc);
  h.in_channels_per_group = static_cast<uint32_t>(ic);
  h.kernel_h = static_cast<uint32_t>(shape.kernel_h);
  h.kernel_w = static_cast<uint32_t>(shape.kernel_w);
  h.groups = static_cast<uint32_t>(shape.groups);
  h.nonzeros = static_cast<uint32_t>(nonzeros);
  h.index_bytes = std::max({oc, ic, patterns.size()}) <= 0xffff ? 2 : 4;

  size_t indices = (2 * oc + 2 * runs + kernels) * h.index_bytes + patterns.size() * pattern_bytes;
  indices = (indices + 3) / 4 * 4;
  std::vector<uint8_t> bytes(sizeof h);
  Writer out(&bytes, h.index_bytes);
  const size_t elements = oc * ic * taps;
  if (indices + 4 * nonzeros >= 4 * elements) {
    h.layout = kDense;
    h.index_bytes = 2;
    bytes.reserve(sizeof h + 4 * elements);
    out.raw(weight, 4 * elements);
    seal(&bytes, h);
    return bytes;
  }
  h.layout = kPatterns;
  h.patterns = static_cast<uint32_t>(patterns.size());
  h.runs = static_cast<uint32_t>(runs);
  h.kernels = static_cast<uint32_t>(kernels);
  bytes.reserve(sizeof h + indices + 4 * nonzeros);

  const std::vector<uint32_t> order = choose_filter_order(weight, shape);
  for (const uint32_t f : order) out.index(f);
  const auto for_each_run = [&](const auto& visit) {
    for (const uint32_t f : order) {
      const auto& list = filters[f];
      for (size_t begin = 0, end; begin < list.size(); begin = end) {
        for (end = begin; end < list.size() && list[end].pattern == list[begin].pattern;) ++end;
        visit(f, begin, end);
      }
    }
  };
  std::vector<size_t> run_counts(oc, 0);
  for_each_run([&](size_t f, size_t, size_t) { ++run_counts[f]; });
  for (const uint32_t f : order) out.index(run_counts[f]);
  for_each_run([&](size_t f, size_t begin, size_t) { out.index(filters[f][begin].pattern); });
  for_each_run([&](size_t, size_t begin, size_t end) { out.index(end - begin); });
  for (const uint32_t f : order)
    for (const Kernel& k : filters[f]) out.index(k.channel);
  for (const std::string* pattern : patterns) out.raw(pattern->data(), pattern->size());
  bytes.resize((bytes.size() + 3) / 4 * 4, 0);
  for (const uint32_t f : order) {
    for (const Kernel& k : filters[f]) {
      const float* w = weight + (f * ic + k.channel) * taps;
      for (size_t t = 0; t < taps; ++t)
        if (stored(w[t])) out.raw(w + t, 4);
    }
  }
  seal(&bytes, h);
  return bytes;
}

PackedInfo inspect_packed(const uint8_t* bytes, size_t size) {
  const PackedHeader h = read_header(bytes, size);
  PackedInfo info;
  info.shape = header_shape(h);
  info.nonzeros = h.nonzeros;
  info.dense = h.layout == kDense;
  info.kernels = info.dense ? info.shape.out_channels * info.shape.in_channels_per_group : h.kernels;
  info.patterns = h.patterns;
  info.checksum = h.checksum;
  info.block_rows = (info.nonzeros + 3) / 4;
  return info;
}

void unpack_weight(const uint8_t* bytes, size_t size, float* weight) {
  const PayloadView view = checked_payload(bytes, size);
  const WeightShape shape = header_shape(view.header);
  const size_t elements = static_cast<size_t>(shape.elements());
  if (view.header.layout == kDense) {
    std::memcpy(weight, view.weights, 4 * elements);
    return;
  }
  std::fill(weight, weight + elements, 0.0f);
  struct Unpack final : KernelVisitor {
    float* weight;
    int64_t channels, taps;
    void kernel(int64_t filter, int64_t, int64_t channel, const uint16_t* tap, int count,
                const float* w) override {
      float* to = weight + (filter * channels + channel) * taps;
      for (int i = 0; i < count; ++i) std::memcpy(to + tap[i], w + i, 4);
    }
  } unpack;
  unpack.weight = weight;
  unpack.channels = shape.in_channels_per_group;
  unpack.taps = shape.taps();
  visit_kernels(view, unpack);
}

}  // namespace semisparse
