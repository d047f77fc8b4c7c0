// SPDX-License-Identifier: Apache-2.0
// PyTorch's threads for the core: follows torch.set_num_threads, and is serial inside another parallel
// region.
#pragma once

#include <ATen/Parallel.h>

#include "core/base/parallel.h"
#include "core/base/task_shares.h"

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
    // at::parallel_for deals out fixed, equal shares: here of threads. The tasks are taken one by one.
    TaskShares shares(threads_);
    shares.deal(count);
    at::parallel_for(0, std::min<int64_t>(threads_, count), 1, [&](int64_t begin, int64_t end) {
      for (int64_t thread = begin; thread < end; ++thread) shares.take(static_cast<int>(thread), task);
    });
  }

 private:
  const int threads_;
};

}  // namespace semisparse::ops
