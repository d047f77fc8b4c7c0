// SPDX-License-Identifier: Apache-2.0
// The few columns that are left when all others fill whole vectors. Here a vector holds the 4 filters of a
// block for lanes / 4 neighbouring rows: weights of a run of all four filters lie in that order anyway.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/row_run/row_run.h"

namespace semisparse {

template <class S>
void pack_tail(const TailPackArgs& a) {
  for (int j = 0; j < a.columns; ++j) {
    float* out = a.out + static_cast<size_t>(j) * a.column_stride;
    for (int c = 0; c < a.channel_count; ++c) {
      const float* from = a.channels[c] + a.offsets[j];
      for (int ky = 0; ky < a.kernel_h; ++ky) {
        for (int kx = 0; kx < a.kernel_w; ++kx, out += kBlockFilters) {
          const float x = from[ky * a.tap_y + kx * a.tap_x];
          for (int f = 0; f < kBlockFilters; ++f) out[f] = x;
        }
      }
    }
  }
}

template <class S>
struct TailKernel {
  using Reg = typename S::Reg;
  static constexpr int vector_rows = S::lanes / kBlockFilters;
  static constexpr int max_columns = vector_rows;

  // Rows [0, rows) of Columns columns; Chains sums side by side for each, to hide the latency of the FMA.
  template <int Columns, int Chains>
  static SEMISPARSE_INLINE void rows_of_all(const float* x, size_t column_stride, const float* w, int rows,
                                            float (&sums)[kBlockFilters][max_columns]) {
    Reg acc[Columns][Chains] = {};
    const int step = vector_rows * Chains;
    int r = 0;
    for (; r + step <= rows; r += step, w += Chains * S::lanes, x += Chains * S::lanes) {
      __builtin_prefetch(w + 512);
      for (int i = 0; i < Chains; ++i) {
        const Reg weights = S::loadu(w + i * S::lanes);
        for (int j = 0; j < Columns; ++j)
          acc[j][i] = S::fma(weights, S::loadu(x + j * column_stride + i * S::lanes), acc[j][i]);
      }
    }
    for (int j = 0; j < Columns; ++j) {
      for (int i = 1; i < Chains; ++i) acc[j][0] = S::add(acc[j][0], acc[j][i]);
      float lanes[S::lanes];
      S::storeu(lanes, acc[j][0]);
      for (int i = 0; i < vector_rows; ++i)
        for (int f = 0; f < kBlockFilters; ++f) sums[f][j] += lanes[i * kBlockFilters + f];
    }
    for (; r < rows; ++r, w += kBlockFilters, x += kBlockFilters)
      for (int j = 0; j < Columns; ++j)
        for (int f = 0; f < kBlockFilters; ++f) sums[f][j] += w[f] * x[j * column_stride];
  }

  static void gemm(int columns, const float* panel, size_t column_stride, const RunBlock& block,
                   const float* init, float* acc, size_t acc_stride) {
    float sums[kBlockFilters][max_columns];
    for (int f = 0; f < kBlockFilters; ++f)
      for (int j = 0; j < columns; ++j) sums[f][j] = init != nullptr ? init[f] : acc[f * acc_stride + j];
    const uint16_t* rows = block.rows;
    const float* w = block.weights;
    for (int o = 0; o < 15; ++o) {
      const int subset = run_order()[o], count = block.counts[subset];
      if (count == 0) continue;
      // Rows of a run increase: they are neighbours if the last is as far away as there are rows.
      if (subset == 15 && rows[count - 1] - rows[0] == count - 1) {
        const float* x = panel + rows[0] * kBlockFilters;
        if (columns == 1)
          rows_of_all<1, 4>(x, column_stride, w, count, sums);
        else if (max_columns >= 2 && columns == 2)
          rows_of_all<max_columns >= 2 ? 2 : 1, 2>(x, column_stride, w, count, sums);
        else if (max_columns >= 3 && columns == 3)
          rows_of_all<max_columns >= 3 ? 3 : 1, 2>(x, column_stride, w, count, sums);
        else if (max_columns >= 4)
          rows_of_all<max_columns >= 4 ? 4 : 1, 1>(x, column_stride, w, count, sums);
        w += kBlockFilters * count;
      } else {
        for (int k = 0; k < count; ++k)
          for (int f = 0; f < kBlockFilters; ++f)
            if (subset >> f & 1) {
              for (int j = 0; j < columns; ++j)
                sums[f][j] += *w * panel[static_cast<size_t>(j) * column_stride + rows[k] * kBlockFilters];
              ++w;
            }
      }
      rows += count;
    }
    for (int f = 0; f < kBlockFilters; ++f)
      for (int j = 0; j < columns; ++j) acc[f * acc_stride + j] = sums[f][j];
  }
};

}  // namespace semisparse
