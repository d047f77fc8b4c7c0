// SPDX-License-Identifier: Apache-2.0
// Max pooling of one plane for any Vec. See kernels.h for how it goes about it.
#pragma once

#include <cstdint>

#include "core/max_pool/kernels.h"
#include "core/simd/fetch.h"

namespace semisparse {

template <class S>
struct MaxPool {
  using Reg = typename S::Reg;
  static constexpr int64_t lanes = S::lanes;

  // out[x] = maximum of a[x] and N - 1 rows `step` elements apart, the first of them b; `out` may be a.
  template <int N>
  static SEMISPARSE_INLINE void maximum_of(const float* a, const float* b, int64_t step, int64_t width,
                                           float* out) {
    const auto reduced = [&](auto&& load) {
      Reg m = load(a);
      if (N > 1) m = S::maximum(load(b), m);
      if (N > 2) m = S::maximum(load(b + step), m);
      if (N > 3) m = S::maximum(load(b + 2 * step), m);
      if (N > 4) m = S::maximum(load(b + 3 * step), m);
      return m;
    };
    const auto whole = [&](int64_t x) {
      S::storeu(out + x, reduced([x](const float* p) { return S::loadu(p + x); }));
    };
    int64_t x = 0;
    for (; x + lanes <= width; x += lanes) whole(x);
    if (x == width) return;
    if (width >= lanes) {
      whole(width - lanes);  // some lanes for the second time: a maximum does not mind
    } else {
      const int n = static_cast<int>(width);
      S::store_n(out, n, reduced([n](const float* p) { return S::load_n(p, n); }));
    }
  }

  // out[x] = maximum of `rows` input rows that lie `step` elements apart. At least one row.
  static void reduce_rows(const float* in, int64_t step, int64_t rows, int64_t width, float* out) {
    const float* const second = in + step;
    if (rows == 1) return maximum_of<1>(in, in, 0, width, out);
    if (rows == 2) return maximum_of<2>(in, second, step, width, out);
    if (rows == 3) return maximum_of<3>(in, second, step, width, out);
    if (rows == 4) return maximum_of<4>(in, second, step, width, out);
    maximum_of<5>(in, second, step, width, out);
    for (int64_t r = 5; r < rows; r += 2) {
      if (r + 1 < rows)
        maximum_of<3>(out, in + r * step, step, width, out);
      else
        maximum_of<2>(out, in + r * step, step, width, out);
    }
  }

  // Maximum of windows of `taps` taps (Taps of them, where that is not 0) whose starts lie Stride apart.
  template <int Stride, int Taps>
  static SEMISPARSE_INLINE Reg windows(const float* row, int64_t taps, int64_t dilation) {
    const auto tap = [&](int64_t t) {
      const float* p = row + t * dilation;
      return Stride == 1 ? S::loadu(p) : S::even(S::loadu(p), S::loadu(p + lanes));
    };
    Reg m = tap(0);
    if (Taps > 0) {
      if (Taps > 1) m = S::maximum(tap(1), m);
      if (Taps > 2) m = S::maximum(tap(2), m);
      if (Taps > 3) m = S::maximum(tap(3), m);
      if (Taps > 4) m = S::maximum(tap(4), m);
    } else {
      for (int64_t t = 1; t < taps; ++t) m = S::maximum(tap(t), m);
    }
    return m;
  }

  template <int Stride, int Taps>
  static SEMISPARSE_INLINE void reduce_columns(const float* row, int64_t taps, int64_t dilation,
                                               int64_t width, float* out) {
    int64_t x = 0;
    for (; x + lanes <= width; x += lanes)
      S::storeu(out + x, windows<Stride, Taps>(row + x * Stride, taps, dilation));
    if (x == width) return;
    if (width >= lanes) {
      x = width - lanes;
      S::storeu(out + x, windows<Stride, Taps>(row + x * Stride, taps, dilation));
    } else {
      S::store_n(out, static_cast<int>(width), windows<Stride, Taps>(row, taps, dilation));
    }
  }

  template <int Stride>
  static void reduce_columns(const float* row, int64_t taps, int64_t dilation, int64_t width, float* out) {
    if (taps == 2) return reduce_columns<Stride, 2>(row, 2, dilation, width, out);
    if (taps == 3) return reduce_columns<Stride, 3>(row, 3, dilation, width, out);
    if (taps == 5) return reduce_columns<Stride, 5>(row, 5, dilation, width, out);
    reduce_columns<Stride, 0>(row, taps, dilation, width, out);
  }

  static void pool(const MaxPoolArgs& a) {
    const MaxPool2dGeometry& g = *a.geometry;
    const int64_t length = a.row_length, out_w = a.out_w;
    // The image begins at an aligned address inside a row of maxima, the left border just before it.
    float* const image = a.scratch + (g.pad_w + lanes - 1) / lanes * lanes;
    const Reg nothing = S::set1(-__builtin_inff());
    for (int64_t x = 0; x < length * a.rows; x += lanes) S::store(a.scratch + x, nothing);

    for (int64_t first = a.first; first < a.last; first += a.rows) {
      const int64_t last = first + a.rows < a.last ? first + a.rows : a.last;
      for (int64_t y = first; y < last; ++y) reduce_window_rows(a, y, image + (y - first) * length);
      for (int64_t y = first; y < last; ++y) {
        const float* const row = image + (y - first) * length - g.pad_w;
        float* const out = a.out + y * out_w;
        if (g.stride_w == 1) {
          reduce_columns<1>(row, g.kernel_w, g.dilation_w, out_w, out);
        } else if (g.stride_w == 2) {
          reduce_columns<2>(row, g.kernel_w, g.dilation_w, out_w, out);
        } else {
          float* const all = a.scratch + length * a.rows;
          reduce_columns<1>(row, g.kernel_w, g.dilation_w, (out_w - 1) * g.stride_w + 1, all);
          for (int64_t x = 0; x < out_w; ++x) out[x] = all[x * g.stride_w];
        }
      }
    }
  }

 private:
  // The maxima over the rows of the windows of output row y.
  static SEMISPARSE_INLINE void reduce_window_rows(const MaxPoolArgs& a, int64_t y, float* maxima) {
    const MaxPool2dGeometry& g = *a.geometry;
    const int64_t top = y * g.stride_h - g.pad_h;  // input row of the first tap
    const int64_t above = top < 0 ? (-top + g.dilation_h - 1) / g.dilation_h : 0;  // taps outside the image
    const int64_t start = top + above * g.dilation_h;
    const int64_t inside = start < g.in_h ? (g.in_h - 1 - start) / g.dilation_h + 1 : 0;
    const int64_t rows = inside < g.kernel_h - above ? inside : g.kernel_h - above;
    if (rows <= 0) {
      for (int64_t x = 0; x < g.in_w; ++x) maxima[x] = -__builtin_inff();
      return;
    }
    // Input from further than the L2 cache: the hardware prefetcher stops at every page, so what a row of
    // windows adds to the input is fetched some 200 ns before it is read.
    constexpr int64_t ahead = 2048;
    if (a.row_stride == g.in_w) fetch<S, 3>(a.in + start * a.row_stride + ahead, g.stride_h * g.in_w);
    reduce_rows(a.in + start * a.row_stride, g.dilation_h * a.row_stride, rows, g.in_w, maxima);
  }
};

}  // namespace semisparse
