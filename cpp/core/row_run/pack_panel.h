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
  using Index = typename S::Index;
  using Elem = typename S::Elem;

  // All taps of one kernel row of one channel, from one window. Width: the kernel's width where it is known
  // at compile time (3, the common case), or 0.
  template <int Width>
  static SEMISPARSE_INLINE void taps(const Elem* from, const Index (&index)[Group], int kernel_w,
                                     int32_t tap_x, Elem* to, size_t row) {
    const int width = Width != 0 ? Width : kernel_w;
    int kx = 0;
    for (; kx + Group <= width; kx += Group) {
      const Reg low = S::loadu(from + kx * tap_x), high = S::loadu(from + kx * tap_x + S::lanes);
      for (int j = 0; j < Group; ++j) S::store(to + (kx + j) * row, S::permute2(low, high, index[j]));
    }
    for (; kx < width; ++kx) {
      const Reg low = S::loadu(from + kx * tap_x), high = S::loadu(from + kx * tap_x + S::lanes);
      S::store(to + kx * row, S::permute2(low, high, index[0]));
    }
  }

  // One vector of the panel, all rows: its lane numbers stay in registers. 3x3 kernels get their nine taps
  // unrolled: with fixed distances between the stores GCC's code is a quarter faster.
  template <int Width>
  static __attribute__((noinline)) void one_window(const PackArgs<Elem>& a, const PackWindow& window,
                                                   Elem* out, size_t row) {
    Index index[Group];
    for (int j = 0; j < Group; ++j) index[j] = S::index(&a.plan->indices[window.index], j * a.tap_x);
    const int kernel_h = a.kernel_h, kernel_w = a.kernel_w;
    const int32_t tap_y = a.tap_y, tap_x = a.tap_x, base = window.base;
    const Elem* const* const end = a.channels + a.channel_count;
    if (Width == 3 && kernel_h == 3) {
      for (const Elem* const* channel = a.channels; channel != end; ++channel, out += 9 * row) {
        const Elem* from = *channel + base;
        taps<Width>(from, index, kernel_w, tap_x, out, row);
        taps<Width>(from + tap_y, index, kernel_w, tap_x, out + 3 * row, row);
        taps<Width>(from + 2 * tap_y, index, kernel_w, tap_x, out + 6 * row, row);
      }
      return;
    }
    for (const Elem* const* channel = a.channels; channel != end; ++channel) {
      const Elem* from = *channel + base;
      for (int ky = 0; ky < kernel_h; ++ky, from += tap_y, out += kernel_w * row)
        taps<Width>(from, index, kernel_w, tap_x, out, row);
    }
  }

  // The same from Windows windows, which fill each other's gaps.
  template <int Windows>
  static __attribute__((noinline)) void few_windows(const PackArgs<Elem>& a, const PackWindow* windows,
                                                    Elem* out, size_t row) {
    Index index[Windows][Group];
    typename S::Mask mask[Windows];
    for (int w = 0; w < Windows; ++w) {
      mask[w] = S::mask(windows[w].lanes);
      for (int j = 0; j < Group; ++j) index[w][j] = S::index(&a.plan->indices[windows[w].index], j * a.tap_x);
    }
    const int kernel_h = a.kernel_h, kernel_w = a.kernel_w;
    const int32_t tap_y = a.tap_y, tap_x = a.tap_x;
    const Elem* const* const end = a.channels + a.channel_count;
    for (const Elem* const* channel = a.channels; channel != end; ++channel) {
      const Elem* line = *channel;
      for (int ky = 0; ky < kernel_h; ++ky, line += tap_y) {
        for (int kx = 0; kx < kernel_w; kx += Group) {
          const int count = std::min(Group, kernel_w - kx);
          Reg value[Group];
          for (int w = 0; w < Windows; ++w) {
            const Elem* const from = line + windows[w].base + kx * tap_x;
            const Reg low = S::loadu(from), high = S::loadu(from + S::lanes);
            for (int j = 0; j < Group; ++j) {
              const Reg lanes = S::permute2(low, high, index[w][j]);
              value[j] = w == 0 ? lanes : S::select(mask[w], lanes, value[j]);
            }
          }
          for (int j = 0; j < Group; ++j)
            if (j < count) S::store(out + j * row, value[j]);
          out += static_cast<size_t>(count) * row;
        }
      }
    }
  }

  static __attribute__((noinline)) void several_windows(const PackArgs<Elem>& a, const PackVector& vector,
                                                        Elem* out, size_t row) {
    for (int c = 0; c < a.channel_count; ++c) {
      for (int ky = 0; ky < a.kernel_h; ++ky, out += a.kernel_w * row) {
        for (int kx = 0; kx < a.kernel_w; kx += Group) {
          const int count = std::min(Group, a.kernel_w - kx);
          Reg value[Group] = {};
          for (int w = 0; w < vector.windows; ++w) {
            const PackWindow& window = a.plan->windows[vector.window + w];
            const Elem* from = a.channels[c] + window.base + ky * a.tap_y + kx * a.tap_x;
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
      }
    }
  }

  static __attribute__((noinline)) void neighbours(const PackArgs<Elem>& a, int32_t base, Elem* out,
                                                   size_t row) {
    for (int c = 0; c < a.channel_count; ++c) {
      for (int ky = 0; ky < a.kernel_h; ++ky) {
        const Elem* from = a.channels[c] + base + ky * a.tap_y;
        for (int kx = 0; kx < a.kernel_w; ++kx, from += a.tap_x, out += row) S::store(out, S::loadu(from));
      }
    }
  }

  template <int Width>
  static void pack(const PackArgs<Elem>& a) {
    const size_t row = static_cast<size_t>(a.panel->vectors) * S::lanes;
    for (int v = 0; v < a.panel->vectors; ++v) {
      const PackVector& vector = a.plan->vectors[a.panel->first_vector + v];
      Elem* out = a.out + v * S::lanes;
      if (vector.windows == 0)
        neighbours(a, vector.base, out, row);
      else if (vector.windows == 1)
        one_window<Width>(a, a.plan->windows[vector.window], out, row);
      else if (vector.windows == 2)
        few_windows<2>(a, &a.plan->windows[vector.window], out, row);
      else if (vector.windows == 3)
        few_windows<3>(a, &a.plan->windows[vector.window], out, row);
      else
        several_windows(a, vector, out, row);
    }
  }
};

template <class S, int Group>
void pack_panel_group(const PackArgs<typename S::Elem>& args) {
  if (args.kernel_w == 3) return PackPanel<S, Group>::template pack<3>(args);
  return PackPanel<S, Group>::template pack<0>(args);
}

template <class S>
void pack_panel(const PackArgs<typename S::Elem>& args) {
  switch (args.plan->tap_group) {
    case 1:
      return pack_panel_group<S, 1>(args);
    case 2:
      return pack_panel_group<S, 2>(args);
    default:
      return pack_panel_group<S, 3>(args);
  }
}

}  // namespace semisparse
