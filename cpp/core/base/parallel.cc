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
  // The current call: its number, whether workers may still join it, and how many are inside. One word, so
  // that a worker joins an open call or none: the caller does not wait for workers that sleep through it.
  static constexpr uint64_t kInside = 0xffff, kOpen = 0x10000, kNumber = 0x20000;
  std::atomic<uint64_t> gate{0};

  std::mutex callers;  // one run() at a time
  std::mutex mutex;    // for sleeping, and for `error`
  std::condition_variable wake, done;
  std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false}, stop{false};
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
  bool open(uint64_t seen) const {
    const uint64_t now = gate.load();
    return stop.load() || ((now & kOpen) != 0 && now / kNumber != seen);
  }

  bool join(uint64_t& seen) {
    uint64_t now = gate.load();
    while ((now & kOpen) != 0 && now / kNumber != seen)
      if (gate.compare_exchange_weak(now, now + 1)) {
        seen = now / kNumber;
        return true;
      }
    return false;
  }

  void work(int thread) {
    uint64_t seen = 0;  // calls are numbered from 1
    for (;;) {
      if (!spin(may_spin, [&] { return open(seen); })) {
        std::unique_lock<std::mutex> lock(mutex);
        ++sleepers;  // before the last look at the gate, as run() opens the gate before it looks here
        wake.wait(lock, [&] { return open(seen); });
        --sleepers;
      }
      if (stop.load()) return;
      if (!join(seen)) continue;
      drain(thread);
      const uint64_t left = gate.fetch_sub(1) - 1;
      if ((left & (kOpen | kInside)) == 0 && caller_sleeps.load()) {
        std::lock_guard<std::mutex> lock(mutex);
        done.notify_one();
      }
    }
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
  if (count > 1) {
    s.gate = (s.gate.load() / State::kNumber + 1) * State::kNumber + State::kOpen;
    if (s.sleepers.load() > 0) {
      const std::lock_guard<std::mutex> lock(s.mutex);
      s.wake.notify_all();
    }
  }
  s.drain(0);
  s.gate.fetch_and(~State::kOpen);
  const auto left = [&] { return (s.gate.load() & State::kInside) == 0; };
  if (!spin(s.may_spin, left)) {
    std::unique_lock<std::mutex> lock(s.mutex);
    s.caller_sleeps = true;
    s.done.wait(lock, left);
    s.caller_sleeps = false;
  }
  if (s.error) std::rethrow_exception(s.error);
}

}  // namespace semisparse
