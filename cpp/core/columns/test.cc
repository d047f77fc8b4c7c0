// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "core/columns/column_plan.h"
#include "core/testing/random.h"

using namespace semisparse;
using semisparse::testing::Random;

TEST_CASE("every kept column is packed once, every pixel is stored once, nothing else is touched") {
  Random r(17);
  for (int i = 0; i < 500; ++i) {
    ColumnGeometry g;
    g.out_h = static_cast<int32_t>(r.between(1, 20));
    g.out_w = static_cast<int32_t>(r.between(1, 40));
    g.kernel_w = static_cast<int32_t>(r.between(1, 7));
    g.tap_x = static_cast<int32_t>(r.between(1, 3));
    g.step_x = static_cast<int32_t>(r.between(1, 3));
    g.step_y = (g.out_w * g.step_x + g.kernel_w * g.tap_x) * g.step_x;
    const int lanes = r.one_of({4, 8, 16}), width = static_cast<int>(r.between(1, 6));
    const int32_t pixels = g.out_h * g.out_w;
    const auto mask = r.mask(pixels);
    const bool masked = r.chance(0.8);
    const ColumnTiling tiling{lanes, width, static_cast<int>(r.between(0, lanes / 4)),
                              static_cast<int>(r.between(1, 4))};
    const auto plan = make_column_plan(g, masked ? mask.data() : nullptr, tiling);
    CAPTURE(i);

    // Where each panel column comes from, by walking the plan as the kernels do.
    std::vector<int32_t> source;
    for (const PackVector& v : plan->vectors) {
      std::vector<int32_t> lane(static_cast<size_t>(lanes), -1);
      for (int l = 0; l < lanes; ++l)
        if (v.windows == 0) lane[static_cast<size_t>(l)] = v.base + l;
      for (int k = 0; k < v.windows; ++k) {
        const PackWindow& w = plan->windows[static_cast<size_t>(v.window + k)];
        for (int l = 0; l < lanes; ++l) {
          if (!(w.lanes >> l & 1)) continue;
          const int32_t index = plan->indices[static_cast<size_t>(w.index + l)];
          CHECK(lane[static_cast<size_t>(l)] == -1);
          CHECK((index >= 0 && index + (plan->tap_group - 1) * g.tap_x < 2 * lanes));
          lane[static_cast<size_t>(l)] = w.base + index;
        }
      }
      source.insert(source.end(), lane.begin(), lane.end());
    }
    for (const int32_t offset : plan->tail_offsets) source.push_back(offset);
    CHECK(static_cast<int>(plan->tail_offsets.size()) <= tiling.max_tail);
    std::vector<int> stored(static_cast<size_t>(pixels), 0);
    int32_t vectors = 0;
    for (const Panel& panel : plan->panels) {
      CHECK(panel.vectors <= width);
      CHECK(panel.first_vector == vectors);
      for (int32_t k = 0; k < panel.segments; ++k) {
        const StoreSegment& s = plan->segments[static_cast<size_t>(panel.first_segment + k)];
        for (int l = 0; l < s.count; ++l) {
          const int32_t p = s.out + l;
          ++stored[static_cast<size_t>(p)];
          const bool computed = s.mask >> l & 1;
          CHECK(computed == (!masked || mask[static_cast<size_t>(p)] != 0));
          if (!computed) continue;
          const int32_t column = s.acc + plan->indices[static_cast<size_t>(s.index + l)];
          CHECK(column < panel.vectors * lanes + panel.tail);
          CHECK((panel.first_y <= p / g.out_w && p / g.out_w <= panel.last_y));
          CHECK(source[static_cast<size_t>(vectors * lanes + column)] ==
                p / g.out_w * g.step_y + p % g.out_w * g.step_x);
        }
      }
      if (panel.tail > 0) CHECK(panel.tail == static_cast<int32_t>(plan->tail_offsets.size()));
      vectors += panel.vectors;
    }
    for (const int count : stored) CHECK(count == 1);
    const auto again = [&] { return cached_column_plan(g, masked ? mask.data() : nullptr, tiling).get(); };
    CHECK((again() == again()));
  }
}

TEST_CASE("the cache goes by the content of the mask") {
  ColumnGeometry g;
  g.out_h = g.out_w = 8;
  g.step_y = 8;
  g.step_x = 1;
  std::vector<uint8_t> mask(64, 1);
  const auto before = cached_column_plan(g, mask.data(), {4, 4, 0});
  mask[10] = 0;
  const auto after = cached_column_plan(g, mask.data(), {4, 4, 0});
  CHECK(before->kept == 64);
  CHECK(after->kept == 63);
}

TEST_CASE(
    "direct plans: every kept pixel is read where it lies and stored once, nothing past the last pixel is "
    "read") {
  Random r(41);
  for (int i = 0; i < 500; ++i) {
    const int lanes = r.one_of({4, 8, 16});
    const int32_t out_h = static_cast<int32_t>(r.between(1, 20)),
                  out_w = static_cast<int32_t>(r.between(1, 40));
    const int32_t pitch = out_w + static_cast<int32_t>(r.between(0, 6)), last = (out_h - 1) * pitch + out_w;
    if (last < lanes) continue;
    const auto mask = r.mask(out_h * out_w);
    const bool masked = r.chance(0.8);
    const auto plan = make_direct_plan(out_h, out_w, pitch, masked ? mask.data() : nullptr,
                                       {lanes, static_cast<int>(r.between(1, 6)), 0});
    CAPTURE(i);
    for (const PackVector& v : plan->vectors)
      CHECK((v.windows == 0 && v.base >= 0 && v.base + lanes <= last));
    std::vector<int> stored(static_cast<size_t>(out_h * out_w), 0);
    for (const Panel& panel : plan->panels) {
      for (int32_t s = panel.first_segment; s < panel.first_segment + panel.segments; ++s) {
        const StoreSegment& segment = plan->segments[static_cast<size_t>(s)];
        for (int l = 0; l < segment.count; ++l) {
          const int32_t p = segment.out + l;
          ++stored[static_cast<size_t>(p)];
          const bool computed = segment.mask >> l & 1;
          CHECK(computed == (!masked || mask[static_cast<size_t>(p)] != 0));
          if (!computed) continue;
          const int32_t index = plan->indices[static_cast<size_t>(segment.index + l)];
          CHECK((index >= 0 && index < lanes));
          if (segment.neighbours) CHECK(index == l);
          const int32_t column = segment.acc + index;
          REQUIRE(column < panel.vectors * lanes);
          const PackVector& v = plan->vectors[static_cast<size_t>(panel.first_vector + column / lanes)];
          CHECK(v.base + column % lanes == p / out_w * pitch + p % out_w);
        }
      }
    }
    for (const int n : stored) CHECK(n == 1);
  }
}

TEST_CASE("threads get as many panels each, unless that makes panels narrow") {
  ColumnGeometry g;
  g.out_h = 1;
  g.step_x = 1;
  const auto panels = [&](int32_t vectors, int threads) {
    g.out_w = vectors * 4;
    const auto count = make_column_plan(g, nullptr, {4, 6, 0, threads})->panels.size();
    CHECK(make_direct_plan(1, g.out_w, g.out_w, nullptr, {4, 6, 0, threads})->panels.size() == count);
    return count;
  };
  CHECK(panels(13, 1) == 3);
  CHECK(panels(13, 2) == 4);
  CHECK(panels(49, 2) == 10);
  CHECK(panels(49, 3) == 9);
  CHECK(panels(3, 2) == 1);
  CHECK(panels(4, 2) == 1);
  CHECK(panels(13, 8) == 3);
}
