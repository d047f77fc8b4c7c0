// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution of one plane for any Vec. See kernels.h for how it goes about it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/depthwise/kernels.h"
#include "core/row_run/micro_kernel.h"
#include "core/simd/activation.h"

namespace semisparse {

template <class S>
struct Depthwise {
  using Reg = typename S::Reg;
  static constexpr int64_t lanes = S::lanes;

  static void clear(float* p, int64_t count) {
    for (; count >= lanes; p += lanes, count -= lanes) S::storeu(p, S::set1(0.0f));
    for (; count > 0; --count) *p++ = 0.0f;
  }

  // in[2 i] to even[i], in[2 i + 1] to odd[i].
  static void deal(const float* in, int64_t width, float* even, float* odd) {
    int64_t i = 0;
    for (; 2 * (i + lanes) < width; i += lanes) {
      const float* p = in + 2 * i;
      S::storeu(even + i, S::even(S::loadu(p), S::loadu(p + lanes)));
      S::storeu(odd + i, S::even(S::loadu(p + 1), S::loadu(p + 1 + lanes)));
    }
    for (; 2 * i < width; ++i) {
      even[i] = in[2 * i];
      if (2 * i + 1 < width) odd[i] = in[2 * i + 1];
    }
  }

  static void copy(const DepthwiseCopyArgs& a) {
    const Conv2dGeometry& g = *a.geometry;
    const int64_t stride = g.stride_w, pad = g.pad_w, padded = g.in_w + 2 * pad;
    float* to = a.out;
    for (int64_t row = a.first_row; row < a.last_row; ++row, to += a.layout.row) {
      const int64_t y = row - g.pad_h;
      if (y < 0 || y >= g.in_h) {
        clear(to, a.layout.row);
        continue;
      }
      const float* from = a.in + y * a.stride_h;
      const auto place = [&](int64_t q) { return to + q % stride * a.layout.phase + q / stride; };
      for (int64_t q = 0; q < pad; ++q) *place(q) = 0.0f;
      for (int64_t q = pad + g.in_w; q < padded; ++q) *place(q) = 0.0f;
      if (stride == 1) {
        float* const pixels = to + pad;
        const int64_t whole = g.in_w / lanes * lanes;
        for (int64_t x = 0; x < whole; x += lanes) S::storeu(pixels + x, S::loadu(from + x));
        for (int64_t x = whole; x < g.in_w; ++x) pixels[x] = from[x];
      } else if (stride == 2) {
        deal(from, g.in_w, place(pad), place(pad + 1));
      } else {
        for (int64_t x = 0; x < g.in_w; ++x) *place(pad + x) = from[x];
      }
    }
  }

  // Results of `n` pixels of one row: mask, residual, activation.
  template <class Act>
  static SEMISPARSE_INLINE void store(const DepthwiseArgs& a, Reg y, int64_t row, int64_t x, int64_t n) {
    if (a.mask != nullptr) {
      const uint32_t bits = a.mask[row * ((a.out_w + lanes - 1) / lanes) + x / lanes];
      y = S::select(S::mask(bits), y, S::set1(a.fill));
    }
    const int64_t at = row * a.out_w + x;
    if (n == lanes) {
      if (a.residual != nullptr) y = S::add(y, S::loadu(a.residual + at));
      S::storeu(a.output + at, Act::template apply<S>(y));
    } else {
      const int count = static_cast<int>(n);
      if (a.residual != nullptr) y = S::add(y, S::load_n(a.residual + at, count));
      S::store_n(a.output + at, count, Act::template apply<S>(y));
    }
  }

  static SEMISPARSE_INLINE bool skipped(const DepthwiseArgs& a, int64_t row, int rows, int64_t x) {
    if (a.mask == nullptr) return false;
    const int64_t vectors = (a.out_w + lanes - 1) / lanes;
    uint32_t any = 0;
    for (int r = 0; r < rows; ++r) any |= a.mask[(row + r) * vectors + x / lanes];
    return any == 0;
  }

  // The first `count` of R rows.
  template <int R>
  static SEMISPARSE_INLINE void store_rows(const DepthwiseArgs& a, const Reg (&acc)[R], int64_t row,
                                           int count, int64_t x) {
    const int64_t n = a.out_w - x < lanes ? a.out_w - x : lanes;
    with_activation(a.activation, [&](auto act) {
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) if (r < count)
          store<decltype(act)>(a, acc[r], row + r, x, n);
    });
  }

  // R output rows of a K x K kernel without vertical dilation, StrideH input rows apart. A loaded vector is
  // used by all of them whose windows hold its row.
  template <int K, int StrideH, int R>
  static void rows(const DepthwiseArgs& a, const int64_t* tap, int64_t row) {
    Reg w[K][K];
    SEMISPARSE_UNROLL for (int i = 0; i < K; ++i) SEMISPARSE_UNROLL for (int j = 0; j < K; ++j) w[i][j] =
        S::set1(a.weight[i * K + j]);
    const float* const top = a.in + (row - a.first) * StrideH * a.layout.row;
    for (int64_t x = 0; x < a.out_w; x += lanes) {
      Reg acc[R];
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) acc[r] = S::set1(a.bias);
      if (!skipped(a, row, R, x)) {
        SEMISPARSE_UNROLL for (int i = 0; i < (R - 1) * StrideH + K; ++i) {
          const float* const line = top + i * a.layout.row + x;
          SEMISPARSE_UNROLL for (int j = 0; j < K; ++j) {
            const Reg v = S::loadu(line + tap[j]);
            SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) {
              const int ky = i - r * StrideH;
              if (ky >= 0 && ky < K) acc[r] = S::fma(w[ky][j], v, acc[r]);
            }
          }
        }
      }
      store_rows<R>(a, acc, row, R, x);
    }
  }

  template <int K, int StrideH, int R>
  static void fixed(const DepthwiseArgs& a, const int64_t* tap) {
    int64_t row = a.first;
    for (; row + R <= a.last; row += R) rows<K, StrideH, R>(a, tap, row);
    for (; row < a.last; ++row) rows<K, StrideH, 1>(a, tap, row);
  }

  static void general(const DepthwiseArgs& a) {
    const Conv2dGeometry& g = *a.geometry;
    const int64_t kernel_h = g.weight.kernel_h, kernel_w = g.weight.kernel_w;
    for (int64_t row = a.first; row < a.last; ++row) {
      const float* const top = a.in + (row - a.first) * g.stride_h * a.layout.row;
      for (int64_t x = 0; x < a.out_w; x += lanes) {
        Reg acc[1] = {S::set1(a.bias)};
        if (!skipped(a, row, 1, x)) {
          const float* w = a.weight;
          for (int64_t i = 0; i < kernel_h; ++i) {
            const float* const line = top + i * g.dilation_h * a.layout.row + x;
            for (int64_t j = 0; j < kernel_w; ++j)
              acc[0] = S::fma(S::set1(*w++), S::loadu(line + tap(a, j)), acc[0]);
          }
        }
        store_rows<1>(a, acc, row, 1, x);
      }
    }
  }

  static void plane(const DepthwiseArgs& a) {
    const Conv2dGeometry& g = *a.geometry;
    if (g.dilation_h != 1 || g.weight.kernel_h != g.weight.kernel_w || g.weight.kernel_w > 5)
      return general(a);
    int64_t taps[5];
    for (int64_t j = 0; j < g.weight.kernel_w; ++j) taps[j] = tap(a, j);
    const int64_t kernel = g.weight.kernel_w, stride = g.stride_h;
    if (kernel == 3 && stride == 1) return fixed<3, 1, 4>(a, taps);
    if (kernel == 3 && stride == 2) return fixed<3, 2, 2>(a, taps);
    if (kernel == 5 && stride == 1) return fixed<5, 1, 4>(a, taps);
    if (kernel == 5 && stride == 2) return fixed<5, 2, 2>(a, taps);
    general(a);
  }

  // Which of `lanes` columns from `column` on lie in the image.
  static SEMISPARSE_INLINE uint32_t inside(int64_t column, int64_t width) {
    const int64_t begin = column < 0 ? -column : 0, end = width - column < lanes ? width - column : lanes;
    return begin < end ? static_cast<uint32_t>((uint64_t{1} << end) - (uint64_t{1} << begin)) : 0;
  }

  // The first `count` of R output rows of a K x K kernel, all strides Stride, as in rows(), but from the
  // image itself.
  template <int K, int Stride, int R>
  static void image_rows(const DepthwiseArgs& a, int64_t row, int count) {
    const Conv2dGeometry& g = *a.geometry;
    const int64_t top = row * Stride - g.pad_h, height = g.in_h, width = g.in_w;
    Reg w[K][K];
    SEMISPARSE_UNROLL for (int i = 0; i < K; ++i) SEMISPARSE_UNROLL for (int j = 0; j < K; ++j) w[i][j] =
        S::set1(a.weight[i * K + j]);
    const auto vector = [&](auto at_edge, int64_t x) {
      Reg acc[R];
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) acc[r] = S::set1(a.bias);
      if (!skipped(a, row, count, x)) {
        const int64_t left = x * Stride - g.pad_w;
        typename S::Mask mask[K][Stride];
        if constexpr (at_edge)
          SEMISPARSE_UNROLL for (int j = 0; j < K; ++j) SEMISPARSE_UNROLL for (int h = 0; h < Stride; ++h)
              mask[j][h] = S::mask(inside(left + j + h * lanes, width));
        const auto load = [&](const float* line, int j, int h) {
          if constexpr (at_edge) return S::load_masked(line + j + h * lanes, mask[j][h]);
          return S::loadu(line + j + h * lanes);
        };
        SEMISPARSE_UNROLL for (int i = 0; i < (R - 1) * Stride + K; ++i) {
          const int64_t y = top + i;
          if (y < 0 || y >= height) continue;
          const float* const line = a.in + y * a.stride_h + left;
          SEMISPARSE_UNROLL for (int j = 0; j < K; ++j) {
            Reg v = load(line, j, 0);
            if constexpr (Stride == 2) v = S::even(v, load(line, j, 1));
            SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) {
              const int ky = i - r * Stride;
              if (ky >= 0 && ky < K) acc[r] = S::fma(w[ky][j], v, acc[r]);
            }
          }
        }
      }
      store_rows<R>(a, acc, row, count, x);
    };
    for (int64_t x = 0; x < a.out_w; x += lanes) {
      const int64_t left = x * Stride - g.pad_w;
      if (left >= 0 && left + lanes * Stride + K - 1 <= width)
        vector(std::false_type{}, x);
      else
        vector(std::true_type{}, x);
    }
  }

  template <int K, int Stride, int R>
  static void image(const DepthwiseArgs& a) {
    for (int64_t row = a.first; row < a.last; row += R)
      image_rows<K, Stride, R>(a, row, static_cast<int>(a.last - row < R ? a.last - row : R));
  }

  static void plane_in_place(const DepthwiseArgs& a) {
    if (a.geometry->weight.kernel_h == 3)
      a.geometry->stride_h == 1 ? image<3, 1, 4>(a) : image<3, 2, 2>(a);
    else
      a.geometry->stride_h == 1 ? image<5, 1, 4>(a) : image<5, 2, 2>(a);
  }

  static constexpr auto in_place() -> void (*)(const DepthwiseArgs&) {
    if constexpr (S::masked_loads) return plane_in_place;
    return nullptr;
  }

  // Where tap j of a row's first pixel lies.
  static SEMISPARSE_INLINE int64_t tap(const DepthwiseArgs& a, int64_t j) {
    const int64_t q = j * a.geometry->dilation_w, stride = a.geometry->stride_w;
    return q % stride * a.layout.phase + q / stride;
  }
};

}  // namespace semisparse
