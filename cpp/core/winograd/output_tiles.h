// SPDX-License-Identifier: Apache-2.0
// From the planes of a filter's tiles to output pixels: bias, mask and fill, residual, activation.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/simd/activation.h"
#include "core/winograd/algebra.h"
#include "core/winograd/winograd.h"

namespace semisparse {

template <class S, int M, int R>
struct OutputTiles {
  using Reg = typename S::Reg;
  using Index = typename S::Index;
  static constexpr int P = M + R - 1;

  // Where a line of a tile is one vector, and vectors are easily interleaved, that is done at once: `scratch`
  // holds the M lines of tile after tile, lines M * width floats apart.
  static constexpr bool joined = S::interleaves && S::lanes == M;

  // The panel's sums to M*M arrays, one for each place in a tile, `width` floats apart.
  static __attribute__((noinline)) void transform(const TileOutputArgs& a, size_t width) {
    using Algebra = WinogradAlgebra<S, M, R>;
    const Reg bias = S::set1(a.bias);
    const size_t row = P * a.plane_stride;
    for (size_t v = 0; v < width; v += S::lanes) {
      alignas(64) float half[M * P * S::lanes];
      const float* from[P];
      SEMISPARSE_UNROLL for (int i = 0; i < P; ++i) from[i] = a.sums + v + static_cast<size_t>(i) * row;
      size_t plane = 0;
      for (float* column = half; column != half + P * S::lanes; column += S::lanes, plane += a.plane_stride) {
        Reg m[P], y[M];
        SEMISPARSE_UNROLL for (int i = 0; i < P; ++i) m[i] = S::load(from[i] + plane);
        Algebra::output(m, y);
        SEMISPARSE_UNROLL for (int i = 0; i < M; ++i) S::store(column + i * P * S::lanes, y[i]);
      }
      float* to = a.scratch + v;
      for (const float* line = half; line != half + M * P * S::lanes; line += P * S::lanes, to += M * width) {
        Reg m[P], y[M];
        SEMISPARSE_UNROLL for (int x = 0; x < P; ++x) m[x] = S::load(line + x * S::lanes);
        Algebra::output(m, y);
        SEMISPARSE_UNROLL for (int x = 0; x < M; ++x) y[x] = S::add(y[x], bias);
        if constexpr (joined)
          S::store_join(to + (M - 1) * v, y);
        else
          SEMISPARSE_UNROLL for (int x = 0; x < M; ++x) S::store(to + static_cast<size_t>(x) * width, y[x]);
      }
    }
  }

  // M vectors of every M-th pixel to M vectors of neighbouring pixels.
  static SEMISPARSE_INLINE void join(const Reg (&in)[M], Reg (&out)[M]) {
    if constexpr (M == 2) {
      out[0] = S::zip_low(in[0], in[1]);
      out[1] = S::zip_high(in[0], in[1]);
    } else {
      const Reg even_low = S::zip_low(in[0], in[2]), even_high = S::zip_high(in[0], in[2]);
      const Reg odd_low = S::zip_low(in[1], in[3]), odd_high = S::zip_high(in[1], in[3]);
      out[0] = S::zip_low(even_low, odd_low);
      out[1] = S::zip_high(even_low, odd_low);
      out[2] = S::zip_low(even_high, odd_high);
      out[3] = S::zip_high(even_high, odd_high);
    }
  }

  // M neighbouring vectors, to output pixel `at` and the next.
  template <class Act>
  static SEMISPARSE_INLINE void store_line(const TileOutputArgs& a, int64_t at, Reg (&line)[M]) {
    SEMISPARSE_UNROLL for (int j = 0; j < M; ++j) {
      if (a.residual != nullptr) line[j] = S::add(line[j], S::loadu(a.residual + at + j * S::lanes));
      S::storeu(a.output + at + j * S::lanes, Act::template apply<S>(line[j]));
    }
  }

  // Tiles that fill a vector and are all computed, all their pixels.
  template <class Act>
  static SEMISPARSE_INLINE void store_whole(const TileOutputArgs& a, int64_t at, int32_t acc, int lines,
                                            size_t width) {
    const float* from = a.scratch + acc;
    for (int y = 0; y < lines; ++y, at += a.plan->out_w, from += M * width) {
      Reg in[M], line[M];
      SEMISPARSE_UNROLL for (int x = 0; x < M; ++x) in[x] = S::loadu(from + static_cast<size_t>(x) * width);
      join(in, line);
      store_line<Act>(a, at, line);
    }
  }

  // The lines of a tile: in scratch, `residual` and output, for the tile at the origin of each.
  struct Lines {
    const float *from[M], *residual[M];
    float* to[M];
    SEMISPARSE_INLINE Lines(const TileOutputArgs& a, size_t width) {
      SEMISPARSE_UNROLL for (int y = 0; y < M; ++y) {
        from[y] = a.scratch + static_cast<size_t>(y * M) * width;
        residual[y] = a.residual != nullptr ? a.residual + y * a.plan->out_w : nullptr;
        to[y] = a.output + y * a.plan->out_w;
      }
    }
  };

  // A segment of which every tile is computed or filled, and whole. Tile by tile: what the plan says about
  // it is read once for all its lines.
  template <class Act, bool Residual>
  static SEMISPARSE_INLINE void store_tiles(const Lines& lines, const TileSegment& segment, int64_t at,
                                            Reg fill, Reg filled) {
    uint32_t computed = segment.computed;
    const int64_t end = at + int64_t{segment.count} * M;
    for (int64_t in = int64_t{segment.acc} * M; at < end; at += M, computed >>= 1) {
      if (computed & 1) {
        SEMISPARSE_UNROLL for (int y = 0; y < M; ++y) {
          Reg r = S::loadu(lines.from[y] + in);
          if constexpr (Residual) r = S::add(r, S::loadu(lines.residual[y] + at));
          S::storeu(lines.to[y] + at, Act::template apply<S>(r));
          if (y % 2 == 1) asm volatile("" ::: "memory");  // or GCC mixes four exponentials, which spill
        }
        in += M;
      } else {
        SEMISPARSE_UNROLL for (int y = 0; y < M; ++y) {
          Reg r = filled;
          if constexpr (Residual) r = Act::template apply<S>(S::add(fill, S::loadu(lines.residual[y] + at)));
          S::storeu(lines.to[y] + at, r);
        }
      }
    }
  }

  // One line of a segment whose tiles' lines are vectors.
  template <class Act>
  static SEMISPARSE_INLINE void store_joined(const TileOutputArgs& a, const TileSegment& segment, int64_t at,
                                             const float* from, int64_t pixels, const uint32_t* masks) {
    const Reg fill = S::set1(a.fill);
    for (int t = 0; t < segment.count; ++t, at += M, pixels -= M) {
      Reg r = fill;
      if (segment.computed >> t & 1) {
        r = S::loadu(from);
        from += M;
        if (masks != nullptr) r = S::select(S::mask(masks[t]), r, fill);
      }
      if (pixels >= M) {
        if (a.residual != nullptr) r = S::add(r, S::loadu(a.residual + at));
        S::storeu(a.output + at, Act::template apply<S>(r));
      } else {
        const int n = static_cast<int>(pixels);
        if (a.residual != nullptr) r = S::add(r, S::load_n(a.residual + at, n));
        S::store_n(a.output + at, n, Act::template apply<S>(r));
      }
    }
  }

  template <class Act>
  static void store(const TileOutputArgs& a, const TilePlan::PanelSegments& range, size_t width) {
    const Reg fill = S::set1(a.fill), filled = Act::template apply<S>(fill);
    const Lines whole(a, width);
    constexpr uint32_t all = (S::lanes == 32 ? 0u : 1u << S::lanes) - 1;
    for (int32_t s = range.first; s < range.first + range.count; ++s) {
      const TileSegment& segment = a.plan->segments[static_cast<size_t>(s)];
      const uint32_t full = (1u << segment.count) - 1;
      const bool neighbours = segment.computed == full;
      const Index index = S::index(&a.plan->indices[static_cast<size_t>(segment.index)], 0);
      const int64_t pixels =
          std::min<int64_t>(int64_t{segment.count} * M, a.plan->out_w - int64_t{segment.first} * M);
      const int lines = std::min<int>(M, a.plan->out_h - segment.row * M);
      const uint32_t* masks =
          segment.pixels < 0 ? nullptr : &a.plan->pixels[static_cast<size_t>(segment.pixels)];
      const int64_t first_pixel = int64_t{segment.row} * M * a.plan->out_w + int64_t{segment.first} * M;
      if constexpr (joined) {
        if (lines == M && pixels == int64_t{segment.count} * M && segment.whole) {
          if (a.residual != nullptr)
            store_tiles<Act, true>(whole, segment, first_pixel, fill, filled);
          else
            store_tiles<Act, false>(whole, segment, first_pixel, fill, filled);
          continue;
        }
      } else if (segment.count == S::lanes && neighbours && pixels == M * S::lanes && masks == nullptr) {
        store_whole<Act>(a, first_pixel, segment.acc, lines, width);
        continue;
      }
      for (int y = 0; y < lines; ++y) {
        const int64_t at = first_pixel + y * int64_t{a.plan->out_w};
        if constexpr (joined) {
          const float* const from =
              a.scratch + M * (static_cast<size_t>(y) * width + static_cast<size_t>(segment.acc));
          store_joined<Act>(a, segment, at, from, pixels, masks == nullptr ? nullptr : masks + y * M);
          continue;
        }
        Reg value[M];
        if (segment.computed != 0) {
          const float* from = a.scratch + static_cast<size_t>(y * M) * width + segment.acc;
          Reg in[M];
          SEMISPARSE_UNROLL for (int x = 0; x < M; ++x) {
            in[x] = S::loadu(from + static_cast<size_t>(x) * width);
            if (!neighbours) in[x] = S::permute(in[x], index);
          }
          join(in, value);
        } else {
          SEMISPARSE_UNROLL for (int x = 0; x < M; ++x) value[x] = fill;
        }
        SEMISPARSE_UNROLL for (int j = 0; j < M; ++j) {
          const int64_t left = pixels - j * S::lanes;
          if (left <= 0) continue;
          Reg r = value[j];
          const int64_t out = at + j * S::lanes;
          if (masks != nullptr && masks[y * M + j] != all) r = S::select(S::mask(masks[y * M + j]), r, fill);
          if (left >= S::lanes) {
            if (a.residual != nullptr) r = S::add(r, S::loadu(a.residual + out));
            S::storeu(a.output + out, Act::template apply<S>(r));
          } else {
            const int n = static_cast<int>(left);
            if (a.residual != nullptr) r = S::add(r, S::load_n(a.residual + out, n));
            S::store_n(a.output + out, n, Act::template apply<S>(r));
          }
        }
      }
    }
  }

  static void run(const TileOutputArgs& a) {
    const size_t width = static_cast<size_t>(a.panel->vectors) * S::lanes;
    transform(a, width);
    const auto& range = a.plan->panels[static_cast<size_t>(a.panel - a.plan->tiles->panels.data())];
    with_activation(a.activation, [&](auto act) { store<decltype(act)>(a, range, width); });
  }
};

}  // namespace semisparse
