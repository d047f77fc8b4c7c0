// SPDX-License-Identifier: Apache-2.0
// How the tasks of one Parallel::run are dealt out. Neighbouring tasks touch neighbouring rows of an image,
// in this call and in the next: each thread has a share of neighbours, the same one every time, so that what
// it wrote is still in its own cache when it reads it. Whoever has done its share helps the others, so that a
// thread that was held up (a busy core, a slow core of a big.LITTLE processor) does not hold up the rest.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace semisparse {

class TaskShares {
 public:
  explicit TaskShares(int threads) : shares_(static_cast<size_t>(threads)) {}

  // The first of `count` tasks in a thread's share.
  static int64_t begin(int64_t count, int64_t thread, int64_t threads) { return count * thread / threads; }

  // Not while tasks are taken.
  void deal(int64_t count) {
    const int64_t threads = static_cast<int64_t>(shares_.size());
    for (int64_t t = 0; t < threads; ++t) {
      Share& share = shares_[static_cast<size_t>(t)];
      share.next = begin(count, t, threads);
      share.end = begin(count, t + 1, threads);
    }
  }

  // Calls task(i) for what is left: of `thread`'s own share, then of the following threads'.
  template <class Task>
  void take(int thread, const Task& task) {
    const size_t threads = shares_.size();
    for (size_t t = 0; t < threads; ++t) {
      Share& share = shares_[(static_cast<size_t>(thread) + t) % threads];
      for (int64_t i; (i = share.next.fetch_add(1)) < share.end;) task(i);
    }
  }

 private:
  struct alignas(64) Share {  // a cache line each: threads do not wait for each other's counters
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  std::vector<Share> shares_;
};

}  // namespace semisparse
