// SPDX-License-Identifier: Apache-2.0
// PyTorch's threads for the core: follows torch.set_num_threads, and is serial inside another parallel
// region.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>

#include "core/base/parallel.h"

namespace semisparse::ops {

class AtenParallel final : public Parallel {
 public:
  AtenParallel() : threads_(at::in_parallel_region() ? 1 : at::get_num_threads()) {}

  int threads() const override { return threads_; }

  void run(int64_t count, const std::function<void(int64_t)>& task) override {
    if (threads_ == 1 || count <= 1) {
      for (int64_t i = 0; i < count; ++i) task(i);
      return;
    }
    // at::parallel_for deals out fixed, equal shares. Tasks are taken one by one instead, so that a thread
    // that was held up (a busy core, a slow core of a big.LITTLE processor) does not hold up the others.
    std::atomic<int64_t> next{0};
    at::parallel_for(0, std::min<int64_t>(threads_, count), 1, [&](int64_t, int64_t) {
      for (int64_t i = next++; i < count; i = next++) task(i);
    });
  }

 private:
  const int threads_;
};

}  // namespace semisparse::ops
