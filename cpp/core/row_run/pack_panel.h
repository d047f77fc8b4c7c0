// SPDX-License-Identifier: Apache-2.0
// im2col of kept columns into a panel. The mask is static, so which lane comes from where is known
// beforehand: a vector is two loads and a lane permute, and the two loads serve `Group` neighbouring taps of
// a kernel row.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/row_run/row_run.h"

namespace semisparse {

template <class S, int Group>
struct PackPanel {
  using Reg = typename S::Reg;

  // Taps [kx, kx + Count) of one kernel row, Count <= Group.
  template <int Count>
  static SEMISPARSE_INLINE void taps_one_window(const float* from, const typename S::Index (&index)[Group],
                                                float* to, size_t row) {
    const Reg low = S::loadu(from), high = S::loadu(from + S::lanes);
    for (int j = 0; j < Count; ++j) S::store(to + j * row, S::permute2(low, high, index[j]));
  }

  static void one_window(const PackArgs& a, const PackWindow& window, float* out, size_t row) {
    typename S::Index index[Group];
    for (int j = 0; j < Group; ++j) index[j] = S::index(&a.plan->indices[window.index], j * a.tap_x);
    const int whole = a.kernel_w / Group * Group;
    for (int c = 0; c < a.channel_count; ++c) {
      for (int ky = 0; ky < a.kernel_h; ++ky, out += a.kernel_w * row) {
        const float* from = a.channels[c] + window.base + ky * a.tap_y;
        int kx = 0;
        for (; kx < whole; kx += Group)
          taps_one_window<Group>(from + kx * a.tap_x, index, out + kx * row, row);
        for (; kx < a.kernel_w; ++kx) taps_one_window<1>(from + kx * a.tap_x, index, out + kx * row, row);
      }
    }
  }

  static void several_windows(const PackArgs& a, const PackVector& vector, float* out, size_t row) {
    for (int c = 0; c < a.channel_count; ++c) {
      for (int ky = 0; ky < a.kernel_h; ++ky) {
        for (int kx = 0; kx < a.kernel_w; kx += Group) {
          const int count = std::min(Group, a.kernel_w - kx);
          Reg value[Group] = {};
          for (int w = 0; w < vector.windows; ++w) {
            const PackWindow& window = a.plan->windows[vector.window + w];
            const float* from = a.channels[c] + window.base + ky * a.tap_y + kx * a.tap_x;
            const Reg low = S::loadu(from), high = S::loadu(from + S::lanes);
            const auto mask = S::mask(window.lanes);
            for (int j = 0; j < Group; ++j) {
              const Reg lanes = S::permute2(low, high, S::index(&a.plan->indices[window.index], j * a.tap_x));
              value[j] = w == 0 ? lanes : S::select(mask, lanes, value[j]);
            }
          }
          for (int j = 0; j < Group; ++j)
            if (j < count) S::store(out + (kx + j) * row, value[j]);
        }
        out += a.kernel_w * row;
      }
    }
  }

  static void neighbours(const PackArgs& a, int32_t base, float* out, size_t row) {
    for (int c = 0; c < a.channel_count; ++c) {
      for (int ky = 0; ky < a.kernel_h; ++ky) {
        const float* from = a.channels[c] + base + ky * a.tap_y;
        for (int kx = 0; kx < a.kernel_w; ++kx, from += a.tap_x, out += row) S::store(out, S::loadu(from));
      }
    }
  }

  static void pack(const PackArgs& a) {
    const size_t row = static_cast<size_t>(a.panel->vectors) * S::lanes;
    for (int v = 0; v < a.panel->vectors; ++v) {
      const PackVector& vector = a.plan->vectors[a.panel->first_vector + v];
      float* out = a.out + v * S::lanes;
      if (vector.windows == 0)
        neighbours(a, vector.base, out, row);
      else if (vector.windows == 1)
        one_window(a, a.plan->windows[vector.window], out, row);
      else
        several_windows(a, vector, out, row);
    }
  }
};

template <class S>
void pack_panel(const PackArgs& args) {
  switch (args.plan->tap_group) {
    case 1:
      return PackPanel<S, 1>::pack(args);
    case 2:
      return PackPanel<S, 2>::pack(args);
    default:
      return PackPanel<S, 3>::pack(args);
  }
}

}  // namespace semisparse
