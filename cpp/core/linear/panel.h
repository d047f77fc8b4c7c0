// SPDX-License-Identifier: Apache-2.0
// Sums of one panel of output features for any Vec. See kernels.h for the forms.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/linear/kernels.h"
#include "core/row_run/micro_kernel.h"
#include "core/simd/activation.h"

namespace semisparse {

template <class S>
struct LinearPanel {
  using Reg = typename S::Reg;
  // Sums of 8 rows x 2 vectors, or windows of 8 rows x 2 vectors and their sums, fill 32 registers; 4
  // rows 16.
  static constexpr int max_rows = S::max_vectors >= 6 ? 8 : 4;
  // Sums side by side that hide the latency of the FMA: with few rows, several for each row and vector.
  static constexpr int chains(int sums) { return sums >= 4 ? 1 : sums >= 2 ? 2 : 4; }

  // Weights come from memory in one stream, but the hardware's own prefetching of x86 is late where they are
  // not all that is read. On ARM it would cost an instruction a vector, unmeasured.
  static SEMISPARSE_INLINE void prefetch(const float* weights) {
    if constexpr (S::rows_per_step > 1) __builtin_prefetch(weights + 1024);
  }

  template <int R, int V, int C>
  static SEMISPARSE_INLINE void start(const LinearPanelArgs& a, Reg (&acc)[C][R][V]) {
    SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) {
      const Reg bias = S::loadu(a.bias + v * S::lanes);
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) {
        acc[0][r][v] = bias;
        SEMISPARSE_UNROLL for (int c = 1; c < C; ++c) acc[c][r][v] = S::set1(0.0f);
      }
    }
  }

  template <int R, int V, int C>
  static SEMISPARSE_INLINE void finish(const LinearPanelArgs& a, Reg (&acc)[C][R][V]) {
    with_activation(a.activation, [&](auto act) {
      using Act = decltype(act);
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) {
        SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) {
          Reg sum = acc[0][r][v];
          SEMISPARSE_UNROLL for (int c = 1; c < C; ++c) sum = S::add(sum, acc[c][r][v]);
          S::storeu(a.out + (r * V + v) * S::lanes, Act::template apply<S>(sum));
        }
      }
    });
  }

  // Input I of four: its weights times its value in every row.
  template <int I, int R, int V, int C>
  static SEMISPARSE_INLINE void add_input(Reg (&acc)[C][R][V], const float* weights,
                                          const typename S::Weights (&x)[R]) {
    SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) {
      const Reg w = S::load(weights + (I * V + v) * S::lanes);
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) acc[I % C][r][v] =
          S::template fma_weight<I>(acc[I % C][r][v], w, x[r]);
    }
  }

  template <int R, int V>
  static void dense_rows(const LinearPanelArgs& a) {
    constexpr int C = chains(R * V);
    Reg acc[C][R][V];
    start<R, V, C>(a, acc);
    const float* w = a.weights;
    for (int64_t i = 0; i < a.count; i += 4, w += 4 * V * S::lanes) {
      SEMISPARSE_UNROLL for (int v = 0; v < 4 * V; ++v) prefetch(w + v * S::lanes);
      typename S::Weights x[R];
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) x[r] =
          S::weights(a.x + static_cast<size_t>(r) * a.x_stride + i);
      add_input<0>(acc, w, x);
      add_input<1>(acc, w, x);
      add_input<2>(acc, w, x);
      add_input<3>(acc, w, x);
    }
    finish<R, V, C>(a, acc);
  }

  template <int R>
  static void shared_rows(const LinearPanelArgs& a) {
    constexpr int C = chains(R);
    Reg acc[C][R][1];
    start<R, 1, C>(a, acc);
    const float* w = a.weights;
    const uint16_t* input = a.inputs;
    const auto add = [&](int chain) {
      prefetch(w);
      const Reg weight = S::load(w);
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) acc[chain][r][0] =
          S::fma(weight, S::set1(a.x[static_cast<size_t>(r) * a.x_stride + *input]), acc[chain][r][0]);
      ++input;
      w += S::lanes;
    };
    int64_t left = a.count;
    for (; left >= C; left -= C) {
      SEMISPARSE_UNROLL for (int c = 0; c < C; ++c) add(c);
    }
    for (; left > 0; --left) add(0);
    finish<R, 1, C>(a, acc);
  }

  template <int R>
  static void sliding_rows(const LinearPanelArgs& a) {
    constexpr int C = chains(R);
    Reg acc[C][R][1];
    start<R, 1, C>(a, acc);
    const float* w = a.weights;
    const uint8_t* lanes = a.lanes;
    Reg first[R], second[R];
    SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) second[r] =
        S::loadu(a.x + static_cast<size_t>(r) * a.x_stride);
    for (int64_t place = 0; place < a.count; ++place) {
      SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) {
        first[r] = second[r];
        second[r] = S::loadu(a.x + static_cast<size_t>(r) * a.x_stride + (place + 1) * S::lanes);
      }
      const auto step = [&](int chain) {
        prefetch(w);
        const auto index = S::index_bytes(lanes);
        const Reg weight = S::load(w);
        SEMISPARSE_UNROLL for (int r = 0; r < R; ++r) acc[chain][r][0] =
            S::fma(weight, S::permute2(first[r], second[r], index), acc[chain][r][0]);
        lanes += S::lanes;
        w += S::lanes;
      };
      int left = a.steps[place];
      for (; left >= C; left -= C) {
        SEMISPARSE_UNROLL for (int c = 0; c < C; ++c) step(c);
      }
      // The rest takes turns at the last chains: nothing waits for the first one of the next place.
      if constexpr (C > 1)
        if (left > 0) step(C - 1);
      if constexpr (C > 2)
        if (left > 1) step(C - 2);
      if constexpr (C > 2)
        if (left > 2) step(C - 3);
    }
    finish<R, 1, C>(a, acc);
  }

  template <int R = max_rows>
  static void dense(const LinearPanelArgs& a) {
    if (a.rows == R) return a.vectors == 1 ? dense_rows<R, 1>(a) : dense_rows<R, 2>(a);
    if constexpr (R > 1) return dense<R - 1>(a);
  }
  template <int R = max_rows>
  static void shared(const LinearPanelArgs& a) {
    if (a.rows == R) return shared_rows<R>(a);
    if constexpr (R > 1) return shared<R - 1>(a);
  }
  template <int R = max_rows>
  static void sliding(const LinearPanelArgs& a) {
    if (a.rows == R) return sliding_rows<R>(a);
    if constexpr (R > 1) return sliding<R - 1>(a);
  }
};

}  // namespace semisparse
