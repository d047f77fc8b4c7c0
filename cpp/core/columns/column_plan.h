// SPDX-License-Identifier: Apache-2.0
// Which im2col columns are computed, cut into panels, with everything that can be known before the input
// arrives: where each lane of each panel vector is read from and where each result goes. Depends on the
// geometry, the mask and the vector length only, so one plan serves every call of a layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace semisparse {

// Where output pixels lie in the input. Offsets are in elements of one padded input plane.
struct ColumnGeometry {
  int32_t out_h = 0, out_w = 0;
  int32_t kernel_w = 1;
  int32_t step_y =
      0;  // input offset between vertically neighbouring output pixels: stride_h times the row pitch
  int32_t step_x = 0;  // the same horizontally: stride_w
  int32_t tap_x = 1;   // input offset between horizontally neighbouring taps: dilation_w

  bool operator==(const ColumnGeometry& o) const {
    return out_h == o.out_h && out_w == o.out_w && kernel_w == o.kernel_w && step_y == o.step_y &&
           step_x == o.step_x && tap_x == o.tap_x;
  }
};

// One vector of a panel. Its lanes are read either as `lanes` neighbouring elements at `base` (windows == 0)
// or by lane permutes from `windows` windows of 2*lanes elements each.
struct PackVector {
  int32_t base = 0;
  int32_t window = 0;  // first of its windows
  int32_t windows = 0;
};

// Lane l comes from element base + index[l] where bit l of `lanes` is set (index has ColumnPlan::lanes
// entries, in ColumnPlan::indices). index[l] + (tap_group - 1) * tap_x < 2 * lanes, so the two loads of one
// window serve `tap_group` neighbouring taps.
struct PackWindow {
  int32_t base = 0;
  int32_t index = 0;
  uint32_t lanes = 0;
};

// Up to `lanes` neighbouring output pixels. Bit l of `mask`: pixel out + l is computed and lies in panel
// column acc + index[l]; the other pixels are filled.
struct StoreSegment {
  int32_t out = 0;
  int32_t count = 0;
  int32_t acc = 0;
  int32_t index = 0;
  uint32_t mask = 0;
  bool neighbours = false;  // all computed, pixel out + l in column acc + l
  // If positive: from here on so many segments of a panel that together are one run of whole vectors, all
  // neighbours or all skipped.
  int32_t run = 0;
};

struct Panel {
  int32_t vectors = 0;       // 0: nothing is computed here, only filled
  int32_t first_vector = 0;  // in ColumnPlan::vectors
  int32_t tail = 0;          // columns past the vectors: number vectors * lanes and following of this panel
  int32_t first_segment = 0, segments = 0;
  int32_t first_y = 0,
          last_y = -1;  // output rows of its computed columns (direct: and of where vectors start)
};

struct ColumnPlan {
  int lanes = 0;
  int tap_group = 1;
  int widest = 0;  // most vectors in a panel if one thread has all: chunks follow it, so that sums are cut in
                   // the same places, and rounded alike, on any number of threads
  int64_t kept = 0;        // columns computed
  int32_t read_ahead = 0;  // elements past a plane that packing may read without using them
  std::vector<Panel> panels;
  std::vector<PackVector> vectors;
  std::vector<PackWindow> windows;
  std::vector<StoreSegment> segments;
  std::vector<int32_t> indices;
  std::vector<int32_t> tail_offsets;  // where the last panel's tail is read
};

// How wide vectors and panels are. A few columns more than fill whole vectors (7x7 pixels are 3 vectors of 16
// and one column) would cost a whole vector more; up to max_tail of them become the tail of the last panel,
// for a kernel that has filters along the vector.
struct ColumnTiling {
  int lanes = 1;
  int max_vectors = 1;
  int max_tail = 0;
  int threads = 1;  // that share the panels

  bool operator==(const ColumnTiling& o) const {
    return lanes == o.lanes && max_vectors == o.max_vectors && max_tail == o.max_tail && threads == o.threads;
  }
};

// `mask`: out_h*out_w bytes, 0 = skipped, or null.
std::shared_ptr<const ColumnPlan> make_column_plan(const ColumnGeometry& geometry, const uint8_t* mask,
                                                   const ColumnTiling& tiling);

// For columns that are read where they lie, `pitch` elements from one output row to the next: vectors of
// `lanes` neighbouring elements that together hold every computed pixel (and some that are not stored). None
// reaches past the last pixel, so (out_h - 1) * pitch + out_w must be at least `lanes`.
std::shared_ptr<const ColumnPlan> make_direct_plan(int32_t out_h, int32_t out_w, int32_t pitch,
                                                   const uint8_t* mask, const ColumnTiling& tiling);

// The same as make_column_plan through a small least-recently-used cache whose key is the content of the
// mask, so a changed mask can never meet an old plan. Thread safe.
std::shared_ptr<const ColumnPlan> cached_column_plan(const ColumnGeometry& geometry, const uint8_t* mask,
                                                     const ColumnTiling& tiling);

}  // namespace semisparse
