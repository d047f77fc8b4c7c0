// SPDX-License-Identifier: Apache-2.0
#include "threads.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "core/base/error.h"

namespace semisparse::python {
namespace {

struct State {
  std::mutex mutex;
  int threads = 0;
  std::shared_ptr<Parallel> pool;
  pid_t owner = 0;  // threads do not survive fork(): a child makes its own pool
};

State& state() {
  static State* const instance =
      new State;  // never destroyed: no joining of threads while the interpreter exits
  return *instance;
}

int default_threads() {
  const char* const text = std::getenv("OMP_NUM_THREADS");
  const int wanted = text == nullptr ? 0 : std::atoi(text);
  return wanted >= 1 ? wanted : std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

void set_num_threads(int threads) {
  check(threads >= 1 && threads <= 1024, "the number of threads must be from 1 to 1024, got ", threads);
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (threads != state().threads) state().pool.reset();  // calls that use the old one keep it alive
  state().threads = threads;
}

int get_num_threads() {
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (state().threads == 0) state().threads = default_threads();
  return state().threads;
}

std::shared_ptr<Parallel> shared_pool() {
  const int threads = get_num_threads();
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (state().pool != nullptr && state().owner != getpid()) {
    new std::shared_ptr<Parallel>(
        state().pool);  // leaked: its destructor would wait for threads that do not exist
    state().pool.reset();
  }
  if (state().pool == nullptr) {
    state().owner = getpid();
    if (threads == 1)
      state().pool = std::make_shared<Serial>();
    else
      state().pool = std::make_shared<ThreadPool>(threads);
  }
  return state().pool;
}

}  // namespace semisparse::python
