// SPDX-License-Identifier: Apache-2.0
#include "core/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/base/task_shares.h"

namespace semisparse {
namespace {

// A layer is often over before a sleeping thread has woken up, and the next one comes a few microseconds
// later: so threads look out for work this long before they sleep. An idle program burns no more than that.
constexpr std::chrono::microseconds kSpin{200};

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // waits a little; YIELD does nothing on most cores
#endif
}

// Whether `ready` came true within the spinning time.
template <class Ready>
bool spin(bool allowed, const Ready& ready) {
  if (ready()) return true;
  if (!allowed) return false;
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

struct ThreadPool::State {
  // The current call: its number, whether workers may still join it, how many are inside, how many sleep, and
  // whether the caller does. One word: a worker joins an open call or none, so that the caller does not wait
  // for workers that sleep through it, and whoever changes the word learns in the same step whom to wake. (A
  // flag of its own, stored before the word is read, asks for an order of store and load that QEMU 7 loses
  // when it emulates ARM on x86.)
  static constexpr uint64_t kInside = 1, kAllInside = 0xffff;
  static constexpr uint64_t kSleeper = 0x10000, kSleepers = 0xffff0000;
  static constexpr uint64_t kOpen = uint64_t{1} << 32, kCallerSleeps = kOpen << 1, kNumber = kOpen << 2;
  std::atomic<uint64_t> gate{0};

  std::mutex callers;  // one run() at a time
  std::mutex mutex;    // for sleeping, and for `error`
  std::condition_variable wake, done;
  std::atomic<bool> stop{false};
  std::vector<std::thread> workers;
  bool may_spin = true;

  const std::function<void(int64_t)>* task = nullptr;
  TaskShares shares;
  std::exception_ptr error;

  explicit State(int threads) : shares(threads) {}

  void drain(int thread) {
    shares.take(thread, [&](int64_t i) {
      try {
        (*task)(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!error) error = std::current_exception();
      }
    });
  }

  // A call that is open and not the one that this worker took part in last.
  static bool open(uint64_t gate, uint64_t seen) { return (gate & kOpen) != 0 && gate / kNumber != seen; }
  bool called(uint64_t seen) const { return stop.load() || open(gate.load(), seen); }

  void sleep(uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex);
    if (!open(gate.fetch_add(kSleeper), seen)) wake.wait(lock, [&] { return called(seen); });
    gate.fetch_sub(kSleeper);
  }

  bool join(uint64_t& seen) {
    uint64_t now = gate.load();
    while (open(now, seen))
      if (gate.compare_exchange_weak(now, now + kInside)) {
        seen = now / kNumber;
        return true;
      }
    return false;
  }

  void leave() {
    const uint64_t before = gate.fetch_sub(kInside);
    if ((before & (kAllInside | kCallerSleeps)) == (kInside | kCallerSleeps)) {
      std::lock_guard<std::mutex> lock(mutex);
      done.notify_one();
    }
  }

  void work(int thread) {
    uint64_t seen = 0;  // calls are numbered from 1
    for (;;) {
      if (!spin(may_spin, [&] { return called(seen); })) sleep(seen);
      if (stop.load()) return;
      if (!join(seen)) continue;
      drain(thread);
      leave();
    }
  }

  void open_call() {
    const uint64_t before = gate.fetch_add(kNumber + kOpen);
    if ((before & kSleepers) != 0) {
      const std::lock_guard<std::mutex> lock(mutex);
      wake.notify_all();
    }
  }

  void close_call() {
    gate.fetch_and(~kOpen);
    const auto left = [&] { return (gate.load() & kAllInside) == 0; };
    if (spin(may_spin, left)) return;
    std::unique_lock<std::mutex> lock(mutex);
    if ((gate.fetch_or(kCallerSleeps) & kAllInside) != 0) done.wait(lock, left);
    gate.fetch_and(~kCallerSleeps);
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>(std::max(threads, 1))) {
  // More threads than processors: one that spins keeps another from working.
  state_->may_spin = threads <= static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([s = state_.get(), i] { s->work(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const {
  return static_cast<int>(state_->workers.size()) + 1;
}

void ThreadPool::run(int64_t count, const std::function<void(int64_t)>& task) {
  if (count <= 0) return;
  State& s = *state_;
  std::lock_guard<std::mutex> caller(s.callers);
  s.task = &task;
  s.shares.deal(count);
  s.error = nullptr;
  if (count > 1) s.open_call();
  s.drain(0);
  if (count > 1) s.close_call();
  if (s.error) std::rethrow_exception(s.error);
}

}  // namespace semisparse
