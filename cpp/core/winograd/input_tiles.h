// SPDX-License-Identifier: Apache-2.0
// From a channel's pixels to the planes of its tiles. Tiles lie along the vectors, so each line of pixels is
// first spread by place in a tile, and transformed at once, for the tiles above and below share it: array
// (y, x) holds value x of line y of every tile's patch, tile after tile. The transform of the columns
// follows, vector by vector of the panel.
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
    if constexpr (S::interleaves) {
      S::load_split(p, out);
    } else if constexpr (M == 2) {
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

  // One line of pixels, transformed, into the arrays (y, 0..P-1), `stride` floats apart, from tile `to` on.
  // Past the last tile it reads up to a vector more; nobody asks what that becomes.
  static SEMISPARSE_INLINE void spread(const float* line, int columns, float* to, size_t stride) {
    for (int t = 0; t < columns; t += S::lanes, to += S::lanes) {
      Reg now[M], d[P], value[P];
      split(line, now);
      line += M * S::lanes;
      SEMISPARSE_UNROLL for (int x = 0; x < M; ++x) d[x] = now[x];
      SEMISPARSE_UNROLL for (int x = M; x < P; ++x) d[x] = S::slide(now[x - M], S::set1(line[x - M]));
      WinogradAlgebra<S, M, R>::input(d, value);
      float* array = to;
      SEMISPARSE_UNROLL for (int x = 0; x < P; ++x, array += stride) S::storeu(array, value[x]);
    }
  }

  static SEMISPARSE_INLINE void clear(float* p, int64_t count) {
    for (int64_t x = 0; x < count; x += S::lanes) {
      S::store(p + x, S::set1(0.0f));
      asm volatile("" ::: "memory");  // or GCC calls memset for a vector or two
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
    const int64_t right = (left + pixels) / S::lanes * S::lanes;
    const int rest = static_cast<int>(pixels - whole);
    for (int64_t y = first; y < last; ++y, lines += pitch) {
      if (y < 0 || y >= a.height) {
        clear(lines, width);
        continue;
      }
      clear(lines, left);
      clear(lines + right, width - right);
      const float* in = a.in + y * a.stride_h;
      float* const to = lines + left;
      int64_t x = 0;
      for (; x + 4 * S::lanes <= whole; x += 4 * S::lanes) {
        Reg pixels[4];
        SEMISPARSE_UNROLL for (int i = 0; i < 4; ++i) pixels[i] = S::loadu(in + x + i * S::lanes);
        SEMISPARSE_UNROLL for (int i = 0; i < 4; ++i) S::storeu(to + x + i * S::lanes, pixels[i]);
      }
      for (; x + 2 * S::lanes <= whole; x += 2 * S::lanes) {
        const Reg first = S::loadu(in + x), second = S::loadu(in + x + S::lanes);
        S::storeu(to + x, first);
        S::storeu(to + x + S::lanes, second);
      }
      if (x < whole) S::storeu(to + x, S::loadu(in + x));
      if (rest > 0) S::store_n(to + whole, rest, S::load_n(in + whole, rest));
    }
  }

  static __attribute__((noinline)) void stage(const TileInputArgs& a, const TileScratch& size,
                                              float* arrays) {
    const int columns = a.plan->columns;
    copy_lines(a, size.line, a.scratch);
    const float* line = a.scratch;
    for (int32_t row = a.panel->first_y; row <= a.panel->last_y + 1; ++row) {
      const int lines = row <= a.panel->last_y ? M : P - M;
      float* to = arrays + static_cast<size_t>(row - a.panel->first_y) * static_cast<size_t>(columns);
      for (int y = 0; y < lines; ++y, to += P * size.array, line += size.line)
        spread(line, columns, to, size.array);
    }
  }

  // Where value x of line y of tile 0 lies: at origin + x * array + line[y] (floats).
  struct Patch {
    const float* origin;
    size_t array;
    ptrdiff_t line[P];
  };

  // The columns of one vector of tiles. `load(p)` gives the values that lie at p for tile 0.
  template <class Load>
  static SEMISPARSE_INLINE void transform(const Patch& patch, Load load, float* out, size_t plane_stride) {
    const float* from[P];
    float* to[P];
    SEMISPARSE_UNROLL for (int y = 0; y < P; ++y) {
      from[y] = patch.origin + patch.line[y];
      to[y] = out + static_cast<size_t>(y * P) * plane_stride;
    }
    size_t array = 0, plane = 0;
    for (int x = 0; x < P; ++x, array += patch.array, plane += plane_stride) {
      Reg d[P], t[P];
      SEMISPARSE_UNROLL for (int y = 0; y < P; ++y) d[y] = load(from[y] + array);
      WinogradAlgebra<S, M, R>::input(d, t);
      SEMISPARSE_UNROLL for (int y = 0; y < P; ++y) S::store(to[y] + plane, t[y]);
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
      } else if (vector->windows == 2) {  // often: the last tiles of a row and the first of the next
        const Index index0 = S::index(&tiles.indices[static_cast<size_t>(window[0].index)], 0);
        const Index index1 = S::index(&tiles.indices[static_cast<size_t>(window[1].index)], 0);
        const auto second = S::mask(window[1].lanes);
        const ptrdiff_t base0 = window[0].base, base1 = window[1].base;
        transform(
            patch,
            [&](const float* p) {
              asm("" : "+r"(p));  // one address for four loads, or GCC keeps more of them than registers
              const Reg value = S::permute2(S::loadu(p + base0), S::loadu(p + base0 + S::lanes), index0);
              return S::select(
                  second, S::permute2(S::loadu(p + base1), S::loadu(p + base1 + S::lanes), index1), value);
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
