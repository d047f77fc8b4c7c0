// SPDX-License-Identifier: Apache-2.0
// Memory for weights and scratch.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace semisparse {

// Memory on a cache line's boundary; large pieces on large pages where the system has them, for weights are
// read once from end to end, and with pages of 4 KiB every sixteenth cache line waits for an address as well.
// Null if there is no memory.
inline void* allocate_aligned(size_t bytes) {
  constexpr size_t kLargePage = size_t{2} << 20;
  void* memory = nullptr;
  const bool large = bytes >= 2 * kLargePage;
  if (posix_memalign(&memory, large ? kLargePage : 64, (bytes + 63) / 64 * 64) != 0) return nullptr;
#if defined(__linux__)
  if (large) madvise(memory, bytes, MADV_HUGEPAGE);  // advice: nothing is lost if it is not taken
#endif
  return memory;
}

// The same for std::vector.
template <class T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(size_t count) {
    void* const memory = allocate_aligned(count * sizeof(T));
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) { std::free(memory); }
  bool operator==(const AlignedAllocator&) const { return true; }
  bool operator!=(const AlignedAllocator&) const { return false; }
};

// A grow-only buffer of floats or halves aligned to a cache line, for per-thread scratch memory.
template <class E>
class BasicAlignedBuffer {
 public:
  BasicAlignedBuffer() = default;
  BasicAlignedBuffer(const BasicAlignedBuffer&) = delete;
  BasicAlignedBuffer& operator=(const BasicAlignedBuffer&) = delete;
  ~BasicAlignedBuffer() { std::free(data_); }

  // At least `count` elements; the contents are lost when the buffer grows.
  E* reserve(size_t count) {
    if (count > capacity_) {
      std::free(data_);
      data_ = nullptr;
      capacity_ = 0;
      data_ = static_cast<E*>(allocate_aligned(count * sizeof(E)));
      if (data_ == nullptr) throw std::bad_alloc();
      capacity_ = count;
    }
    return data_;
  }

  const E* data() const { return data_; }

 private:
  E* data_ = nullptr;
  size_t capacity_ = 0;
};
using AlignedBuffer = BasicAlignedBuffer<float>;

}  // namespace semisparse
