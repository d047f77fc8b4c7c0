// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/base/parallel.h"

using namespace semisparse;

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
