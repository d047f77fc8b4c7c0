// SPDX-License-Identifier: Apache-2.0
// A grow-only float buffer aligned to a cache line, for per-thread scratch memory.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace semisparse {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { std::free(data_); }

  // At least `count` floats; the contents are lost when the buffer grows.
  float* reserve(size_t count) {
    if (count > capacity_) {
      std::free(data_);
      data_ = nullptr;
      capacity_ = 0;
      const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
      void* memory = nullptr;
      if (posix_memalign(&memory, 64, bytes) != 0) throw std::bad_alloc();
      data_ = static_cast<float*>(memory);
      capacity_ = count;
    }
    return data_;
  }

 private:
  float* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace semisparse
