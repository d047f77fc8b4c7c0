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

  // The panel's sums to M*M arrays, one for each place in a tile, `width` floats apart.
  static __attribute__((noinline)) void transform(const TileOutputArgs& a, size_t width) {
    using Algebra = WinogradAlgebra<S, M, R>;
    for (size_t v = 0; v < width; v += S::lanes) {
      alignas(64) float half[M * P * S::lanes];
      const float* sums = a.sums + v;
      const size_t row = P * a.plane_stride;
      float* column = half;
      for (int x = 0; x < P; ++x, sums += a.plane_stride, column += S::lanes) {
        Reg m[P], y[M];
        const float* from = sums;
        SEMISPARSE_UNROLL for (int i = 0; i < P; ++i) {
          m[i] = S::load(from);
          from += row;
        }
        Algebra::output(m, y);
        SEMISPARSE_UNROLL for (int i = 0; i < M; ++i) S::store(column + i * P * S::lanes, y[i]);
      }
      const Reg bias = S::set1(a.bias);
      float* to = a.scratch + v;
      for (int i = 0; i < M; ++i) {
        Reg m[P], y[M];
        SEMISPARSE_UNROLL for (int x = 0; x < P; ++x) m[x] = S::load(half + (i * P + x) * S::lanes);
        Algebra::output(m, y);
        SEMISPARSE_UNROLL for (int x = 0; x < M; ++x) {
          S::store(to, S::add(y[x], bias));
          to += width;
        }
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

  template <class Act>
  static void store(const TileOutputArgs& a, const TilePlan::PanelSegments& range, size_t width) {
    const Reg fill = S::set1(a.fill);
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
      for (int y = 0; y < lines; ++y) {
        const int64_t at = (int64_t{segment.row} * M + y) * a.plan->out_w + int64_t{segment.first} * M;
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
