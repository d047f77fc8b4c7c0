// SPDX-License-Identifier: Apache-2.0
// Dense weights over a panel whose columns do not fill its vectors, or fill just one (Winograd's tiles of a
// small image), several blocks at once. A block by itself takes as long for one column of a vector as for
// all: 7x7 pixels are 16 tiles, of which a mask leaves 12, and 28x28 are 49. With one vector it also takes
// five loads for four multiply-adds.
#pragma once

#include <algorithm>
#include <cstddef>

#include "core/row_run/ordered_runs.h"
#include "core/row_run/row_run.h"

namespace semisparse {

template <class S>
struct FullBlocks {
  using Reg = typename S::Reg;
  static constexpr int lanes = S::lanes, filters = 2 * lanes;
  static constexpr int blocks = lanes == 16 ? filters / kBlockFilters : 0;
  static constexpr int most_columns = 14;  // 2 x 14 sums, 2 of weights, 1 column; of 32 registers

  template <class AddRow>
  static SEMISPARSE_INLINE void each_row(size_t rows, const AddRow& add_row) {
    size_t row = 0;
    for (; row + 4 <= rows; row += 4) SEMISPARSE_UNROLL for (int i = 0; i < 4; ++i) add_row();
    for (; row < rows; ++row) add_row();
  }

  // What is read so many rows later, in this call or the next, whose weights lie behind these: to the L1
  // cache meanwhile. Measured on 512 -> 512 at 7x7 and 256 -> 256 at 14x14, two threads: a whole call ahead
  // to the L2 cache 3 to 10% slower, a quarter as far ahead 5%, none 30%.
  static constexpr size_t rows_ahead = 128;
  static SEMISPARSE_INLINE void prefetch(const float* weights) { __builtin_prefetch(weights, 0, 3); }

  // All columns, columns along the vector, of half of the filters: 17 loads a row for 16 multiply-adds.
  static void whole_vector(const float* panel, size_t rows, const float* weights, bool start, float* acc,
                           size_t acc_stride) {
    Reg sums[lanes];
    SEMISPARSE_UNROLL for (int f = 0; f < lanes; ++f) sums[f] =
        start ? S::set1(0.0f) : S::load(acc + static_cast<size_t>(f) * acc_stride);
    each_row(rows, [&] {
      const Reg columns = S::load(panel);
      prefetch(weights + lanes * rows_ahead);
      SEMISPARSE_UNROLL for (int f = 0; f < lanes; ++f) sums[f] =
          S::fma(columns, S::set1(weights[f]), sums[f]);
      weights += lanes;
      panel += lanes;
    });
    SEMISPARSE_UNROLL for (int f = 0; f < lanes; ++f)
        S::store(acc + static_cast<size_t>(f) * acc_stride, sums[f]);
  }

  // Filters along the vector: sums of C columns, of the first half of the filters to low, of the other to
  // high. C + 2 loads a row for 2 C multiply-adds.
  template <int C>
  static __attribute__((noinline)) void multiply(const float* panel, size_t width, size_t rows,
                                                 const float* weights, Reg* low, Reg* high) {
    Reg sums[2][C];
    SEMISPARSE_UNROLL for (int c = 0; c < C; ++c) sums[0][c] = sums[1][c] = S::set1(0.0f);
    const float* others = weights + lanes * rows;
    const auto add_rows = [&](size_t count, size_t distance) {
      each_row(count, [&] {
        const Reg first = S::loadu(weights), second = S::loadu(others);
        prefetch(weights + distance);
        prefetch(others + distance);
        SEMISPARSE_UNROLL for (int c = 0; c < C; ++c) {
          const Reg column = S::set1(panel[c]);
          sums[0][c] = S::fma(first, column, sums[0][c]);
          sums[1][c] = S::fma(second, column, sums[1][c]);
        }
        weights += lanes;
        others += lanes;
        panel += width;
      });
    };
    // The last rows of a half are followed by the first of the same half of the next blocks.
    const size_t inside = rows > rows_ahead ? rows - rows_ahead : 0;
    add_rows(inside, lanes * rows_ahead);
    add_rows(rows - inside, lanes * (rows_ahead + rows));
    SEMISPARSE_UNROLL for (int c = 0; c < C; ++c) {
      low[c] = sums[0][c];
      high[c] = sums[1][c];
    }
  }

  template <int C = most_columns>
  static void columns(int count, const float* panel, size_t width, size_t rows, const float* weights,
                      Reg* low, Reg* high) {
    if (count == C) return multiply<C>(panel, width, rows, weights, low, high);
    if constexpr (C > 1) columns<C - 1>(count, panel, width, rows, weights, low, high);
  }

  // Row f of the result is column f of `r`: bit by bit, a row's number and a lane's change places.
  static SEMISPARSE_INLINE void transpose(Reg (&r)[lanes]) {
    for (int step = 1; step < lanes; step *= 2) {
      Reg zipped[lanes];
      SEMISPARSE_UNROLL for (int i = 0; i < lanes / 2; ++i) {
        zipped[2 * i] = S::zip_low(r[i], r[i + lanes / 2]);
        zipped[2 * i + 1] = S::zip_high(r[i], r[i + lanes / 2]);
      }
      SEMISPARSE_UNROLL for (int i = 0; i < lanes; ++i) r[i] = zipped[i];
    }
  }

  static void gemm(int count, const float* panel, size_t rows, const float* weights, bool start, float* acc,
                   size_t acc_stride) {
    if (acc_stride == lanes && count > most_columns) {
      for (int part = 0; part < 2; ++part)
        whole_vector(panel, rows, weights + static_cast<size_t>(part * lanes) * rows, start,
                     acc + static_cast<size_t>(part * lanes) * acc_stride, acc_stride);
      return;
    }
    const int groups = (count + most_columns - 1) / most_columns, width = static_cast<int>(acc_stride);
    for (int g = 0, first = 0; g < groups; ++g) {
      const int group = (count - first) / (groups - g);
      // The last group sets what is left of its vector, too.
      const int stored = g + 1 < groups ? group : std::min<int>(lanes, width - first);
      Reg sums[2][lanes];
      for (auto& half : sums)
        for (int c = group; c < lanes; ++c) half[c] = S::set1(0.0f);
      columns(group, panel + first, acc_stride, rows, weights, sums[0], sums[1]);
      float* to = acc + first;
      for (auto& half : sums) {
        transpose(half);
        for (int f = 0; f < lanes; ++f, to += acc_stride)
          S::store_n(to, stored, start ? half[f] : S::add(half[f], S::load_n(to, stored)));
      }
      first += group;
    }
  }
};

template <class S>
constexpr auto gemm_full() -> decltype(RowRunKernels::gemm_full) {
  if constexpr (FullBlocks<S>::blocks > 0)
    return FullBlocks<S>::gemm;
  else
    return nullptr;
}

}  // namespace semisparse
