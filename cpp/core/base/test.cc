// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/task_shares.h"
#include "core/cpu/cpu.h"

using namespace semisparse;

TEST_CASE("A processor without the features that everything needs is told so in words") {
#if defined(__aarch64__)
  CHECK(missing_features(0).find("NEON") != std::string::npos);
  CHECK(missing_features(~0ul).empty());
#else
  CHECK(missing_features(0).empty());
#endif
  require_features();
}

TEST_CASE("cores in program order are known by /proc/cpuinfo, if there are no others") {
  const auto core = [](const char* maker, const char* part) {
    return std::string("processor\t: 0\nCPU implementer\t: ") + maker +
           "\nCPU variant\t: 0x0\nCPU part\t: " + part + "\n\n";
  };
  const std::string a53 = core("0x41", "0xd03"), a72 = core("0x41", "0xd08"), other = core("0x51", "0xd03");
  const auto in_order = [](const std::string& text) {
    std::istringstream file(text);
    return all_in_order(file);
  };
  CHECK(in_order(a53 + a53));
  CHECK_FALSE(in_order(a53 + a72));  // a thread may run on either
  CHECK_FALSE(in_order(other));
  CHECK_FALSE(in_order("model name\t: another processor\n"));
  CHECK_FALSE(in_order(""));
}

TEST_CASE("ThreadPool runs every task once, again and again, from several callers, and passes errors on") {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    std::vector<std::thread> callers;
    std::atomic<int> wrong{0};
    for (int c = 0; c < 3; ++c)
      callers.emplace_back([&] {
        for (int round = 0; round < 50; ++round) {
          std::vector<std::atomic<int>> hits(37);
          pool.run(37, [&](int64_t i) { ++hits[static_cast<size_t>(i)]; });
          for (const auto& h : hits) wrong += h != 1;
        }
      });
    for (auto& c : callers) c.join();
    CHECK(wrong == 0);
    CHECK_THROWS_AS(pool.run(5,
                             [](int64_t i) {
                               if (i == 3) throw std::runtime_error("task");
                             }),
                    std::runtime_error);
    int after = 0;
    pool.run(1, [&](int64_t) { ++after; });
    CHECK(after == 1);
  }
}

TEST_CASE(
    "ThreadPool: calls that follow at once, after a pause, and of one task; the caller waits for nobody "
    "asleep") {
  ThreadPool pool(2);
  for (const int pause_us : {0, 50, 1000}) {
    int64_t sum = 0;
    for (int round = 0; round < (pause_us > 100 ? 20 : 2000); ++round) {
      std::atomic<int64_t> part{0};
      const int64_t tasks = round % 5;
      pool.run(tasks, [&](int64_t i) { part += i + 1; });
      sum += part - tasks * (tasks + 1) / 2;
      if (pause_us > 0 && round % 7 == 0) std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
    }
    CHECK(sum == 0);
  }
}

TEST_CASE(
    "ThreadPool: the caller and more workers than processors fall asleep and are woken, again and again") {
  ThreadPool pool(static_cast<int>(std::thread::hardware_concurrency()) + 1);  // so that nobody spins
  std::atomic<int64_t> tasks{0};
  const int64_t rounds = 600000 / pool.threads() / 5 * 5;
  for (int64_t round = 0; round < rounds; ++round)
    pool.run(3 + round % 5, [&](int64_t i) {
      for (int64_t k = (round * 7 + i * 13) % 50; k > 0; --k) asm volatile("" ::"r"(k));
      ++tasks;
    });
  CHECK(tasks == 5 * rounds);
}

TEST_CASE("ThreadPool burns no processor time while it is idle") {
  ThreadPool pool(2);
  pool.run(2, [](int64_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(std::clock() - before < CLOCKS_PER_SEC / 20);
}

TEST_CASE("TaskShares: each thread its own neighbours, then what others left; every task once") {
  for (const int threads : {1, 2, 3, 5}) {
    TaskShares shares(threads);
    for (const int64_t count : {0, 1, 4, 37}) {
      shares.deal(count);
      std::vector<int64_t> taken;
      shares.take(threads - 1, [&](int64_t i) { taken.push_back(i); });
      REQUIRE(static_cast<int64_t>(taken.size()) == count);
      const int64_t first = count * (threads - 1) / threads;
      for (int64_t i = 0; i < count; ++i) CHECK(taken[static_cast<size_t>(i)] == (first + i) % count);
      shares.take(0, [&](int64_t) { CHECK(false); });
    }
  }
}
