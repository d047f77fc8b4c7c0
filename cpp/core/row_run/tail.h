// SPDX-License-Identifier: Apache-2.0
// The few columns that are left when all others fill whole vectors. Here a vector holds the 4 filters of a
// block for lanes / 4 neighbouring rows: weights of a run of all four filters lie in that order anyway.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/row_run/micro_kernel.h"
#include "core/row_run/row_run.h"

namespace semisparse {

template <class S>
void pack_tail(const TailPackArgs<float>& a) {
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
  // Four columns were no faster than a vector more (AVX-512, 7x7 and 14x14).
  static constexpr int max_columns = vector_rows < 3 ? vector_rows : 3;

  // `count` neighbouring rows of Columns columns; Chains sums side by side for each, to hide the latency of
  // the FMA.
  template <int Columns, int Chains>
  static SEMISPARSE_INLINE void neighbouring_rows(const float* x, size_t column_stride, const float* w,
                                                  int count, float* sums) {
    Reg acc[Columns][Chains];
    SEMISPARSE_UNROLL for (int j = 0; j < Columns; ++j) {
      acc[j][0] = S::loadu(sums + j * S::lanes);
      SEMISPARSE_UNROLL for (int i = 1; i < Chains; ++i) acc[j][i] = S::set1(0.0f);
    }
    const auto add = [&](int chain, Reg weights) {
      SEMISPARSE_UNROLL for (int j = 0; j < Columns; ++j) acc[j][chain] =
          S::fma(weights, S::loadu(x + j * column_stride), acc[j][chain]);
    };
    int left = count * kBlockFilters;
    for (; left >= Chains * S::lanes; left -= Chains * S::lanes) {
      SEMISPARSE_UNROLL for (int i = 0; i < Chains; ++i, w += S::lanes, x += S::lanes) add(i, S::loadu(w));
    }
    for (; left >= S::lanes; left -= S::lanes, w += S::lanes, x += S::lanes) add(0, S::loadu(w));
    // What follows belongs to another run: not even its product with zero may enter, for it may be infinite.
    if (left > 0) {
      const Reg weights = S::load_n(w, left);
      SEMISPARSE_UNROLL for (int j = 0; j < Columns; ++j) acc[j][0] =
          S::fma(weights, S::load_n(x + j * column_stride, left), acc[j][0]);
    }
    SEMISPARSE_UNROLL for (int j = 0; j < Columns; ++j) {
      SEMISPARSE_UNROLL for (int i = 1; i < Chains; ++i) acc[j][0] = S::add(acc[j][0], acc[j][i]);
      S::storeu(sums + j * S::lanes, acc[j][0]);
    }
  }

  static void gemm(int columns, const float* panel, size_t column_stride, const RunBlock& block,
                   const float* init, float* sums) {
    if (init != nullptr)
      for (int j = 0; j < columns; ++j)
        for (int l = 0; l < S::lanes; ++l) sums[j * S::lanes + l] = l < kBlockFilters ? init[l] : 0.0f;
    const uint16_t* rows = block.rows;
    const float* w = block.weights;
    for (int o = 0; o < 15; ++o) {
      const int subset = run_order()[o], count = block.counts[subset];
      if (count == 0) continue;
      // Rows of a run increase: they are neighbours if the last is as far away as there are rows.
      if (subset == 15 && rows[count - 1] - rows[0] == count - 1) {
        const float* x = panel + rows[0] * kBlockFilters;
        if (columns == 1) neighbouring_rows<1, 4>(x, column_stride, w, count, sums);
        if constexpr (max_columns >= 2)
          if (columns == 2) neighbouring_rows<2, 2>(x, column_stride, w, count, sums);
        if constexpr (max_columns >= 3)
          if (columns == 3) neighbouring_rows<3, 2>(x, column_stride, w, count, sums);
        w += kBlockFilters * count;
      } else {
        for (int k = 0; k < count; ++k)
          for (int f = 0; f < kBlockFilters; ++f)
            if (subset >> f & 1) {
              for (int j = 0; j < columns; ++j)
                sums[j * S::lanes + f] +=
                    *w * panel[static_cast<size_t>(j) * column_stride + rows[k] * kBlockFilters];
              ++w;
            }
      }
      rows += count;
    }
    static_assert(max_columns <= 3, "every number of columns has its kernel above");
  }

  static void finish(int columns, const float* sums, float* acc, size_t acc_stride) {
    for (int j = 0; j < columns; ++j)
      for (int f = 0; f < kBlockFilters; ++f) {
        float sum = sums[j * S::lanes + f];
        for (int i = 1; i < vector_rows; ++i) sum += sums[j * S::lanes + i * kBlockFilters + f];
        acc[f * acc_stride + j] = sum;
      }
  }
};

}  // namespace semisparse
