// SPDX-License-Identifier: Apache-2.0
// Dense weights over a panel of one vector (Winograd's tiles of a small image), several blocks at once. A
// block by itself takes five loads for four multiply-adds, and as long for one column as for all.
#pragma once

#include <cstddef>

#include "core/row_run/ordered_runs.h"
#include "core/row_run/row_run.h"

namespace semisparse {

template <class S>
struct FullBlocks {
  using Reg = typename S::Reg;
  static constexpr int lanes = S::lanes, blocks = S::lanes == 16 ? 8 : 0;
  static constexpr int most_columns =
      kMostFullColumns;  // 2 x 11 sums, 2 of weights, 1 column; of 32 registers

  // All columns, columns along the vector: 16 filters at a time, 17 loads a row for 16 multiply-adds.
  static void whole_vector(const float* panel, size_t rows, const float* weights, bool start, float* acc,
                           size_t acc_stride) {
    constexpr int together = 4;
    Reg sums[together][kBlockFilters];
    const float* w[together];
    SEMISPARSE_UNROLL for (int b = 0; b < together; ++b) {
      w[b] = weights + static_cast<size_t>(b) * kBlockFilters * rows;
      SEMISPARSE_UNROLL for (int f = 0; f < kBlockFilters; ++f) sums[b][f] =
          start ? S::set1(0.0f) : S::load(acc + static_cast<size_t>(b * kBlockFilters + f) * acc_stride);
    }
    const auto add_row = [&] {
      const Reg columns = S::load(panel);
      panel += lanes;
      SEMISPARSE_UNROLL for (int b = 0; b < together; ++b) {
        const auto four = S::weights(w[b]);
        sums[b][0] = S::template fma_weight<0>(sums[b][0], columns, four);
        sums[b][1] = S::template fma_weight<1>(sums[b][1], columns, four);
        sums[b][2] = S::template fma_weight<2>(sums[b][2], columns, four);
        sums[b][3] = S::template fma_weight<3>(sums[b][3], columns, four);
        w[b] += kBlockFilters;
      }
    };
    size_t row = 0;
    for (; row + 4 <= rows; row += 4) {
      // To the L2 cache what the next blocks read; it lies behind these. Measured on 512 -> 512 at 7x7 and
      // 256 -> 256 at 14x14: to the L1 cache 4% slower, 2 KiB ahead 4%, none 30%.
      SEMISPARSE_UNROLL for (int b = 0; b < together; ++b)
          __builtin_prefetch(w[b] + together * kBlockFilters * rows, 0, 2);
      SEMISPARSE_UNROLL for (int i = 0; i < 4; ++i) add_row();
    }
    for (; row < rows; ++row) add_row();
    SEMISPARSE_UNROLL for (int b = 0; b < together; ++b)
        SEMISPARSE_UNROLL for (int f = 0; f < kBlockFilters; ++f)
            S::store(acc + static_cast<size_t>(b * kBlockFilters + f) * acc_stride, sums[b][f]);
  }

  // Filters along the vector: sums of C columns, of the first 16 filters to low, of the other 16 to high. C
  // and 8 loads a row for 2 C multiply-adds.
  template <int C>
  static __attribute__((noinline)) void multiply(const float* panel, size_t rows, const float* weights,
                                                 Reg* low, Reg* high) {
    Reg sums[2][C];
    SEMISPARSE_UNROLL for (int c = 0; c < C; ++c) sums[0][c] = sums[1][c] = S::set1(0.0f);
    const size_t block = rows * kBlockFilters;
    const auto add_row = [&] {
      const float* const other = weights + 4 * block;
      const Reg first = S::join(weights, weights + block, weights + 2 * block, weights + 3 * block);
      const Reg second = S::join(other, other + block, other + 2 * block, other + 3 * block);
      SEMISPARSE_UNROLL for (int c = 0; c < C; ++c) {
        const Reg column = S::set1(panel[c]);
        sums[0][c] = S::fma(first, column, sums[0][c]);
        sums[1][c] = S::fma(second, column, sums[1][c]);
      }
      weights += kBlockFilters;
      panel += lanes;
    };
    size_t row = 0;
    for (; row + 4 <= rows; row += 4) {
      SEMISPARSE_UNROLL for (int b = 0; b < blocks; ++b)
          __builtin_prefetch(weights + (static_cast<size_t>(b) + blocks) * block, 0, 2);
      SEMISPARSE_UNROLL for (int i = 0; i < 4; ++i) add_row();
    }
    for (; row < rows; ++row) add_row();
    SEMISPARSE_UNROLL for (int c = 0; c < C; ++c) {
      low[c] = sums[0][c];
      high[c] = sums[1][c];
    }
  }

  template <int C = most_columns>
  static void columns(int count, const float* panel, size_t rows, const float* weights, Reg* low, Reg* high) {
    if (count == C) return multiply<C>(panel, rows, weights, low, high);
    if constexpr (C > 1) columns<C - 1>(count, panel, rows, weights, low, high);
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
    if (count > most_columns) {
      for (int part = 0; part < 2; ++part)
        whole_vector(panel, rows, weights + static_cast<size_t>(part) * 16 * rows, start,
                     acc + static_cast<size_t>(part) * 16 * acc_stride, acc_stride);
      return;
    }
    Reg sums[2][lanes];
    for (auto& half : sums)
      for (int c = count; c < lanes; ++c) half[c] = S::set1(0.0f);
    columns(count, panel, rows, weights, sums[0], sums[1]);
    for (auto& half : sums) {
      transpose(half);
      for (int f = 0; f < lanes; ++f, acc += acc_stride)
        S::store(acc, start ? half[f] : S::add(half[f], S::load(acc)));
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
