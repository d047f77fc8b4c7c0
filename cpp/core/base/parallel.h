// SPDX-License-Identifier: Apache-2.0
// How the core is given threads. It never starts one by itself inside an operator: the caller (PyTorch's
// pool, the ThreadPool below, or nobody) decides, so thread settings of the host program are followed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace semisparse {

class Parallel {
 public:
  virtual ~Parallel() = default;
  // Number of tasks that may run at the same time, at least 1.
  virtual int threads() const = 0;
  // Calls task(i) once for every i in [0, count), in any order, possibly at the same time, neighbours rather
  // in the same thread, and the same ones whenever `count` tasks are run (TaskShares); returns when all
  // are done. A task that throws: one of the exceptions is rethrown here after all tasks have ended.
  virtual void run(int64_t count, const std::function<void(int64_t)>& task) = 0;
};

// Runs everything in the calling thread.
class Serial final : public Parallel {
 public:
  int threads() const override { return 1; }
  void run(int64_t count, const std::function<void(int64_t)>& task) override {
    for (int64_t i = 0; i < count; ++i) task(i);
  }
};

// A plain pool of std::thread workers for programs without one of their own (the numpy runtime, C++ tests).
// run() may be called from several threads at once; calls are served one after the other.
class ThreadPool final : public Parallel {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  int threads() const override;
  void run(int64_t count, const std::function<void(int64_t)>& task) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace semisparse
