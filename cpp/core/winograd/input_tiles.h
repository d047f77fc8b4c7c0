// SPDX-License-Identifier: Apache-2.0
// From a channel's pixels to the planes of its tiles. Tiles lie along the vectors, so pixels are first spread
// over arrays by their place in a tile (`lane arrays`): array (y, x) holds pixel (y, x) of every tile's
// patch, tile after tile. After that every step is a plain vector step.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/winograd/algebra.h"
#include "core/winograd/scratch.h"
#include "core/winograd/winograd.h"

namespace semisparse {

template <class S, int M, int R>
struct InputTiles {
  using Reg = typename S::Reg;
  using Index = typename S::Index;
  static constexpr int P = M + R - 1;
  static_assert(P <= 2 * M);

  // M vectors of neighbouring pixels to M vectors of every M-th pixel.
  static SEMISPARSE_INLINE void split(const float* p, Reg (&out)[M]) {
    if constexpr (M == 2) {
      const Reg a = S::loadu(p), b = S::loadu(p + S::lanes);
      out[0] = S::even(a, b);
      out[1] = S::odd(a, b);
    } else {
      const Reg a = S::loadu(p), b = S::loadu(p + S::lanes);
      const Reg c = S::loadu(p + 2 * S::lanes), d = S::loadu(p + 3 * S::lanes);
      const Reg even0 = S::even(a, b), even1 = S::even(c, d), odd0 = S::odd(a, b), odd1 = S::odd(c, d);
      out[0] = S::even(even0, even1);
      out[1] = S::even(odd0, odd1);
      out[2] = S::odd(even0, even1);
      out[3] = S::odd(odd0, odd1);
    }
  }

  // One line of pixels into the arrays (y, 0..P-1), `stride` floats apart, from tile `to` on. Arrays from M
  // on hold the first pixels of the next tile.
  static SEMISPARSE_INLINE void spread(const float* line, int columns, float* to, size_t stride, Index next) {
    Reg now[M], then[M];
    split(line, now);
    for (int t = 0; t < columns; t += S::lanes) {
      line += M * S::lanes;
      // The line buffer ends with the vectors that hold the first pixels past the last tile.
      if (t + S::lanes <= columns)
        split(line, then);
      else
        for (int i = 0; i < M; ++i) then[i] = now[i];
      for (int x = 0; x < M; ++x) S::storeu(to + x * stride + t, now[x]);
      for (int x = 0; x < P - M; ++x)
        S::storeu(to + (M + x) * stride + t, S::permute2(now[x], then[x], next));
      for (int i = 0; i < M; ++i) now[i] = then[i];
    }
  }

  // The panel's lines of pixels, each in the middle of zeros, as far as its tiles reach. A pass of its own:
  // read back at once, with another alignment, they would have to wait for the stores.
  static __attribute__((noinline)) void copy_lines(const TileInputArgs& a, size_t pitch, float* lines) {
    const int64_t first = int64_t{a.panel->first_y} * M - a.pad_h;
    const int64_t last = int64_t{a.panel->last_y + 1} * M + P - M - a.pad_h;
    const int64_t width = static_cast<int64_t>(pitch), left = a.pad_w;
    const int64_t pixels = std::max<int64_t>(0, std::min(a.width, width - left));
    const int64_t whole = pixels / S::lanes * S::lanes;
    const int rest = static_cast<int>(pixels - whole);
    for (int64_t y = first; y < last; ++y, lines += pitch) {
      if (y < 0 || y >= a.height) {
        for (int64_t x = 0; x < width; x += S::lanes) S::store(lines + x, S::set1(0.0f));
        continue;
      }
      for (int64_t x = 0; x < left; x += S::lanes) S::store(lines + x, S::set1(0.0f));
      for (int64_t x = (left + pixels) / S::lanes * S::lanes; x < width; x += S::lanes)
        S::store(lines + x, S::set1(0.0f));
      const float* in = a.in + y * a.stride_h;
      for (int64_t x = 0; x < whole; x += S::lanes) S::storeu(lines + left + x, S::loadu(in + x));
      if (rest > 0) S::store_n(lines + left + whole, rest, S::load_n(in + whole, rest));
    }
  }

  static __attribute__((noinline)) void stage(const TileInputArgs& a, const TileScratch& size,
                                              float* arrays) {
    const int columns = a.plan->columns;
    alignas(64) int32_t lane[S::lanes];
    for (int l = 0; l < S::lanes; ++l) lane[l] = l + 1;
    const Index next = S::index(lane, 0);
    copy_lines(a, size.line, a.scratch);
    const float* line = a.scratch;
    for (int32_t row = a.panel->first_y; row <= a.panel->last_y + 1; ++row) {
      const int lines = row <= a.panel->last_y ? M : P - M;
      float* to = arrays + static_cast<size_t>(row - a.panel->first_y) * static_cast<size_t>(columns);
      for (int y = 0; y < lines; ++y, to += P * size.array, line += size.line)
        spread(line, columns, to, size.array, next);
    }
  }

  // Where pixel (y, x) of tile 0 lies: at origin + x * array + line[y] (floats).
  struct Patch {
    const float* origin;
    size_t array;
    ptrdiff_t line[P];
  };

  // One vector of tiles. `load(p)` gives the pixels that lie at p for tile 0.
  template <class Load>
  static SEMISPARSE_INLINE void transform(const Patch& patch, Load load, float* out, size_t plane_stride) {
    using Algebra = WinogradAlgebra<S, M, R>;
    alignas(64) float half[P * P * S::lanes];
    const float* from = patch.origin;
    float* to = half;
    for (int x = 0; x < P; ++x, from += patch.array, to += S::lanes) {
      Reg d[P], t[P];
      SEMISPARSE_UNROLL for (int y = 0; y < P; ++y) d[y] = load(from + patch.line[y]);
      Algebra::input(d, t);
      SEMISPARSE_UNROLL for (int y = 0; y < P; ++y) S::store(to + y * P * S::lanes, t[y]);
    }
    const float* row = half;
    for (int y = 0; y < P; ++y, row += P * S::lanes) {
      Reg d[P], t[P];
      SEMISPARSE_UNROLL for (int x = 0; x < P; ++x) d[x] = S::load(row + x * S::lanes);
      Algebra::input(d, t);
      SEMISPARSE_UNROLL for (int x = 0; x < P; ++x) {
        S::store(out, t[x]);
        out += plane_stride;
      }
    }
  }

  static void run(const TileInputArgs& a) {
    const ColumnPlan& tiles = *a.plan->tiles;
    const TileScratch size(*a.plan, S::lanes, a.panel->last_y - a.panel->first_y + 1);
    float* const arrays = a.scratch + size.lines;
    stage(a, size, arrays);
    const int columns = a.plan->columns;
    Patch patch;
    patch.origin = arrays - static_cast<ptrdiff_t>(a.panel->first_y) * columns;
    patch.array = size.array;
    for (int y = 0; y < P; ++y)
      patch.line[y] = static_cast<ptrdiff_t>(static_cast<size_t>(y % M * P) * size.array) + y / M * columns;
    const PackVector* vector = &tiles.vectors[static_cast<size_t>(a.panel->first_vector)];
    const PackVector* const end = vector + a.panel->vectors;
    for (float* out = a.out; vector != end; ++vector, out += S::lanes) {
      const PackWindow* const window = tiles.windows.data() + vector->window;
      if (vector->windows == 0) {
        const ptrdiff_t base = vector->base;
        transform(patch, [&](const float* p) { return S::loadu(p + base); }, out, a.plane_stride);
      } else if (vector->windows == 1) {
        const Index index = S::index(&tiles.indices[static_cast<size_t>(window->index)], 0);
        const ptrdiff_t base = window->base;
        transform(
            patch,
            [&](const float* p) {
              return S::permute2(S::loadu(p + base), S::loadu(p + base + S::lanes), index);
            },
            out, a.plane_stride);
      } else {
        transform(
            patch,
            [&](const float* p) {
              Reg value = S::set1(0.0f);
              for (int w = 0; w < vector->windows; ++w) {
                const float* const at = p + window[w].base;
                const Index index = S::index(&tiles.indices[static_cast<size_t>(window[w].index)], 0);
                value = S::select(S::mask(window[w].lanes),
                                  S::permute2(S::loadu(at), S::loadu(at + S::lanes), index), value);
              }
              return value;
            },
            out, a.plane_stride);
      }
    }
  }
};

}  // namespace semisparse
