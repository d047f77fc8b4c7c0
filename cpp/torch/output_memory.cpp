// SPDX-License-Identifier: Apache-2.0
#include "output_memory.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>

#include <iterator>
#include <map>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace semisparse::ops {
namespace {

constexpr size_t kRegionBytes = size_t{64} << 20;
constexpr size_t kSmallBytes = size_t{64} << 10;  // malloc does well enough
constexpr size_t kAlignment = 64;

class Region final : public c10::Allocator {
 public:
  Region() {
#if defined(__linux__)
    void* const memory = mmap(nullptr, kRegionBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return;  // everything is PyTorch's own then
    madvise(memory, kRegionBytes, MADV_HUGEPAGE);
    start_ = static_cast<char*>(memory);
    free_[0] = kRegionBytes;
#endif
  }

  c10::DataPtr allocate(size_t bytes) override {
    const size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes >= kSmallBytes && bytes <= kRegionBytes) {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (auto place = free_.begin(); place != free_.end(); ++place) {
        if (place->second < size) continue;
        const size_t at = place->first, left = place->second - size;
        free_.erase(place);
        if (left > 0) free_[at + size] = left;
        used_[at] = size;
        void* const memory = start_ + at;
        return {memory, memory, release, c10::Device(c10::DeviceType::CPU)};
      }
    }
    return c10::GetCPUAllocator()->allocate(bytes);
  }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void release(void* memory);

  void give_back(void* memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto used = used_.find(static_cast<size_t>(static_cast<char*>(memory) - start_));
    auto place = free_.emplace(used->first, used->second).first;
    used_.erase(used);
    const auto next = std::next(place);
    if (next != free_.end() && place->first + place->second == next->first) {
      place->second += next->second;
      free_.erase(next);
    }
    if (place != free_.begin()) {
      const auto before = std::prev(place);
      if (before->first + before->second == place->first) {
        before->second += place->second;
        free_.erase(place);
      }
    }
  }

  char* start_ = nullptr;
  std::mutex mutex_;
  std::map<size_t, size_t> free_, used_;  // places in the region and their sizes
};

Region& region() {
  static Region* const instance = new Region;  // never destroyed: tensors may outlive static objects
  return *instance;
}

void Region::release(void* memory) {
  region().give_back(memory);
}

}  // namespace

at::Tensor new_output(at::IntArrayRef sizes, at::ScalarType dtype) {
  size_t bytes = c10::elementSize(dtype);
  for (const int64_t size : sizes) bytes *= static_cast<size_t>(size);
  // torch.utils.deterministic fills new tensors; that is left to PyTorch.
  const at::Context& context = at::globalContext();
  const bool filled = context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory();
  if (bytes < kSmallBytes || filled) return at::empty(sizes, dtype);
  return at::Tensor(at::detail::empty_generic(sizes, &region(), c10::DispatchKeySet(c10::DispatchKey::CPU),
                                              dtype, std::nullopt));
}

}  // namespace semisparse::ops
