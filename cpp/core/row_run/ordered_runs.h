// SPDX-License-Identifier: Apache-2.0
// The loops of the micro-kernel where the compiler does not choose the order of instructions. GCC moves loads
// of the next row before the last products of this one, and 24 sums with two rows of a panel do not fit into
// the 32 registers of NEON: it spilled. Here every load and every product is one instruction that stays where
// it is written, and the compiler only hands out registers: a row's vectors are loaded over those of the row
// before as soon as these are used, and rows share the loads of their numbers and weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// GCC keeps an array of vectors in registers only if every loop over it is unrolled before register
// allocation.
#define SEMISPARSE_UNROLL _Pragma("GCC unroll 16")

// Lambdas of the micro-kernel are code, not functions.
#define SEMISPARSE_INLINE_LAMBDA __attribute__((always_inline))

namespace semisparse {

template <class S, int V, class Rows>
struct OrderedRuns {
  using Reg = typename S::Reg;
  using Sums = Reg[4][V];
  using Number = typename Rows::Number;
  using Place = typename Rows::Place;
  static constexpr int pairs = (V + 1) / 2;

  // f(0) ... f(N - 1), as constants.
  template <int N, int I = 0, class F>
  static SEMISPARSE_INLINE void each(const F& f) {
    f(std::integral_constant<int, I>());
    if constexpr (I + 1 < N) each<N, I + 1>(f);
  }

  // Vectors 2 * Pair and 2 * Pair + 1, if there is one, of the row that begins `Bytes` behind `row`.
  template <int Pair, int Bytes>
  static SEMISPARSE_INLINE void load(Reg (&b)[V], const Rows& from, Place row) {
    constexpr int v = 2 * Pair;
    if constexpr (Rows::in_parts) {
      constexpr int at = Bytes + Rows::template in_part<v> * static_cast<int>(sizeof(Reg));
      const Place part = from.template part<v>(row);
      if constexpr (v + 1 < V)
        S::template load_pair<at>(part, b[v], b[v + 1]);
      else
        S::template load_one<at>(part, b[v]);
    } else {
      S::load_offset(from.starts[v], row, b[v]);
      if constexpr (v + 1 < V) S::load_offset(from.starts[v + 1], row, b[v + 1]);
    }
  }

  // Those vectors times a row's weights, which begin in lane `Lane` of the registers w.
  template <int Subset, int Pair, int Lane, int N>
  static SEMISPARSE_INLINE void multiply(Sums& acc, const Reg (&b)[V], const Reg (&w)[N]) {
    constexpr int l0 = Lane, l1 = l0 + (Subset & 1), l2 = l1 + (Subset >> 1 & 1), l3 = l2 + (Subset >> 2 & 1);
    SEMISPARSE_UNROLL for (int v = 2 * Pair; v < V && v < 2 * Pair + 2; ++v) {
      if constexpr (Subset & 1) S::template fma_lane<l0 % 4>(acc[0][v], b[v], w[l0 / 4]);
      if constexpr (Subset & 2) S::template fma_lane<l1 % 4>(acc[1][v], b[v], w[l1 / 4]);
      if constexpr (Subset & 4) S::template fma_lane<l2 % 4>(acc[2][v], b[v], w[l2 / 4]);
      if constexpr (Subset & 8) S::template fma_lane<l3 % 4>(acc[3][v], b[v], w[l3 / 4]);
    }
  }

  // `Step` rows: those at `row`, or, if they are neighbours, that at row[0] and the next.
  template <int Subset, int Step, bool Neighbours = false>
  static SEMISPARSE_INLINE void step(Sums& acc, const Rows& from, const Place* row, const float*& weights) {
    constexpr int used = (Subset & 1) + (Subset >> 1 & 1) + (Subset >> 2 & 1) + (Subset >> 3 & 1);
    Reg w[(Step * used + 3) / 4], b[V];
    S::template load_weights<Step * used>(weights, w);
    each<pairs>([&](auto p) SEMISPARSE_INLINE_LAMBDA { load<p, 0>(b, from, row[0]); });
    each<Step>([&](auto i) SEMISPARSE_INLINE_LAMBDA {
      each<pairs>([&](auto p) SEMISPARSE_INLINE_LAMBDA {
        multiply<Subset, p, i * used>(acc, b, w);
        if constexpr (i + 1 < Step && Neighbours)
          load<p, (i + 1) * static_cast<int>(sizeof(Reg)) * V>(b, from, row[0]);
        else if constexpr (i + 1 < Step)
          load<p, 0>(b, from, row[i + 1]);
      });
    });
  }

  template <int Subset, int Step>
  static SEMISPARSE_INLINE void numbered(Sums& acc, const Rows& from, const Number* rows,
                                         const float*& weights) {
    Place row[Step];
    each<Step>([&](auto i) SEMISPARSE_INLINE_LAMBDA { row[i] = from.row(rows[i]); });
    step<Subset, Step>(acc, from, row, weights);
  }

  // Neighbouring rows used by all four filters: no number is read.
  static SEMISPARSE_INLINE void neighbours(Sums& acc, const Rows& from, Place row, const float*& weights,
                                           unsigned count) {
    constexpr size_t row_bytes = Rows::row_bytes;
    for (const Place end = row + count / 4 * 4 * row_bytes; row != end; row += 4 * row_bytes) {
      const Place next = row + 2 * row_bytes;
      step<15, 2, true>(acc, from, &row, weights);
      step<15, 2, true>(acc, from, &next, weights);
    }
    if (count & 2) {
      step<15, 2, true>(acc, from, &row, weights);
      row += 2 * row_bytes;
    }
    if (count & 1) step<15, 1>(acc, from, &row, weights);
  }

  // One run: rows used by exactly the filters in Subset.
  template <int Subset>
  static SEMISPARSE_INLINE void run(Sums& acc, const Rows& from, const Number*& rows, const float*& weights,
                                    unsigned count) {
    constexpr int used = (Subset & 1) + (Subset >> 1 & 1) + (Subset >> 2 & 1) + (Subset >> 3 & 1);
    constexpr int together = used == 1 ? 4 : 2;  // whose weights fill whole registers, but for three filters
    const Number* const end = rows + count;
    if constexpr (Subset == 15 && Rows::packed) {
      // Rows of a run increase: they are neighbours if the last is as far away as there are rows.
      if (count > 1 && end[-1] - rows[0] == static_cast<int>(count) - 1) {
        neighbours(acc, from, from.row(rows[0]), weights, count);
        rows = end;
        return;
      }
    }
    if constexpr (Subset == 15)
      for (unsigned n = count / (2 * together); n != 0; --n, rows += 2 * together) {
        numbered<Subset, together>(acc, from, rows, weights);
        numbered<Subset, together>(acc, from, rows + together, weights);
      }
    for (unsigned n = (end - rows) / together; n != 0; --n, rows += together)
      numbered<Subset, together>(acc, from, rows, weights);
    for (; rows != end; ++rows) numbered<Subset, 1>(acc, from, rows, weights);
  }
};

}  // namespace semisparse
