// SPDX-License-Identifier: Apache-2.0
// The micro-kernel: 4 filters x V vectors of sums in registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/row_run/ordered_runs.h"
#include "core/row_run/row_run.h"

namespace semisparse {

// Where the vectors of a row are: in a packed panel, one after the other, row after row.
template <class S, int V>
struct PackedRows {
  using Number = uint16_t;  // of the panel row
  using Place = const char*;
  static constexpr bool packed = true, in_parts = true;
  static constexpr size_t row_bytes = sizeof(typename S::Elem) * V * S::lanes;
  const char* panel;
  SEMISPARSE_INLINE Place row(Number number) const { return S::row_start(panel, number, row_bytes); }
  template <int I>
  SEMISPARSE_INLINE Place part(Place row) const {
    return row;
  }
  template <int I>
  static constexpr int in_part = I;
  SEMISPARSE_INLINE typename S::Reg load(Place row, int v) const {
    return S::load(reinterpret_cast<const typename S::Elem*>(row) + v * S::lanes);
  }
};

// In the input itself: every row has an offset in bytes, every vector a start.
template <class S, int V>
struct DirectRows {
  using Number = uint32_t;  // bytes from a start to the row
  using Place = uint32_t;
  static constexpr bool packed = false, in_parts = false;
  const char* starts[V];
  SEMISPARSE_INLINE Place row(Number number) const { return number; }
  SEMISPARSE_INLINE typename S::Reg load(Place row, int v) const {
    return S::loadu(reinterpret_cast<const typename S::Elem*>(starts[v] + row));
  }
};

// The same for vectors that lie side by side, or in two parts that do, the second from vector First on: there
// is one start for each part, and loads come in pairs.
template <class S, int V, int First = V>
struct SideBySideRows {
  using Number = uint32_t;
  using Place = const char*;
  static constexpr bool packed = false, in_parts = true;
  const char* start;
  ptrdiff_t second = 0;  // bytes from there to the second part
  SEMISPARSE_INLINE Place row(Number number) const { return start + number; }
  template <int I>
  SEMISPARSE_INLINE Place part(Place row) const {
    return I < First ? row : row + second;
  }
  template <int I>
  static constexpr int in_part = I < First ? I : I - First;
  SEMISPARSE_INLINE typename S::Reg load(Place row, int v) const {
    return S::loadu(reinterpret_cast<const typename S::Elem*>(v < First ? row : row + second) +
                    (v < First ? v : v - First) * S::lanes);
  }
};

template <class S, int V, class Rows>
struct MicroKernel {
  using Reg = typename S::Reg;
  using Sums = Reg[kBlockFilters][V];
  using Number = typename Rows::Number;

  // One panel row times the weights of the filters in bit set Subset.
  template <int Subset>
  static SEMISPARSE_INLINE void add_row(Sums& acc, const Rows& from, Number number, const float* weights) {
    constexpr int n0 = Subset & 1, n1 = n0 + (Subset >> 1 & 1), n2 = n1 + (Subset >> 2 & 1);
    const auto row = from.row(number);
    const auto w = S::weights(weights);
    Reg b[V];
    SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) b[v] = from.load(row, v);
    if constexpr (Subset & 1)
      SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) acc[0][v] = S::template fma_weight<0>(acc[0][v], b[v], w);
    if constexpr (Subset & 2)
      SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) acc[1][v] =
          S::template fma_weight<n0>(acc[1][v], b[v], w);
    if constexpr (Subset & 4)
      SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) acc[2][v] =
          S::template fma_weight<n1>(acc[2][v], b[v], w);
    if constexpr (Subset & 8)
      SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) acc[3][v] =
          S::template fma_weight<n2>(acc[3][v], b[v], w);
  }

  // One run: rows used by exactly the filters in Subset.
  template <int Subset>
  static SEMISPARSE_INLINE void run(Sums& acc, const Rows& from, const Number*& rows, const float*& weights,
                                    unsigned count) {
    constexpr int used = (Subset & 1) + (Subset >> 1 & 1) + (Subset >> 2 & 1) + (Subset >> 3 & 1);
    if constexpr (S::in_program_order && (V > 1 || used == 1))
      return OrderedRuns<S, V, Rows>::template run<Subset>(acc, from, rows, weights, count);
    const Number* const end = rows + count;
    if constexpr (Subset == 15 && V > 1 && S::rows_per_step > 1) {
      for (; end - rows >= S::rows_per_step; rows += S::rows_per_step, weights += S::rows_per_step * used) {
        prefetch(weights);
        SEMISPARSE_UNROLL for (int i = 0; i < S::rows_per_step; ++i) {
          add_row<Subset>(acc, from, rows[i], weights + i * used);
          asm volatile("" ::: "memory");  // loads of the next row moved up here would spill sums
        }
      }
    }
    if constexpr (V == 1 && used > 1) {
      // One vector makes few sums, and each would wait for the one before it: every other row has its own.
      Reg other[kBlockFilters][V];
      SEMISPARSE_UNROLL for (int f = 0; f < kBlockFilters; ++f) other[f][0] = S::set1(0.0f);
      if constexpr (Subset == 15 && Rows::packed && S::rows_per_step > 1) {
        // Bound by loads: four row numbers in one, and the weights of four rows are a cache line to prefetch.
        for (; end - rows >= 4; rows += 4, weights += 4 * used) {
          uint64_t numbers;
          std::memcpy(&numbers, rows, sizeof(numbers));
          prefetch(weights);
          SEMISPARSE_UNROLL for (int i = 0; i < 4; ++i) add_row<Subset>(
              i % 2 == 0 ? acc : other, from, static_cast<Number>(numbers >> 16 * i), weights + i * used);
        }
      }
      for (; end - rows >= 2; rows += 2, weights += 2 * used) {
        prefetch(weights);
        add_row<Subset>(acc, from, rows[0], weights);
        add_row<Subset>(other, from, rows[1], weights + used);
      }
      SEMISPARSE_UNROLL for (int f = 0; f < kBlockFilters; ++f) acc[f][0] = S::add(acc[f][0], other[f][0]);
    }
    for (; rows != end; ++rows, weights += used) {
      prefetch(weights);
      add_row<Subset>(acc, from, *rows, weights);
    }
  }

  // Weights are read once per panel, from L3 or memory in deep layers, where the hardware prefetcher of x86
  // is late. How far ahead was measured on 512 -> 512 channels at 7x7 and 256 -> 256 at 14x14, where panels
  // are one to three vectors wide: 2 to 16 KiB, 6 are best (Winograd 5 to 12% faster than with 2). On ARM it
  // would cost an instruction a row, unmeasured.
  static SEMISPARSE_INLINE void prefetch(const float* weights) {
    if constexpr (S::rows_per_step > 1) __builtin_prefetch(weights + 1536);
  }

  // Sums of one chunk in half precision are exact enough, those of all are not: they are added up in floats.
  using Float = typename S::Float;
  static constexpr bool apart = !std::is_same_v<Float, S>;

  // `source` by reference, and copied: by value, its copy on the stack would be read with other widths than
  // it was written with, and a load that no store can be forwarded to waits for all stores before it.
  static __attribute__((noinline)) void block(const Rows& source, const Number* rows, const RunBlock& runs,
                                              const float* init, float* sums, size_t stride) {
    const Rows from = source;
    Sums acc;
    if constexpr (apart) {
      SEMISPARSE_UNROLL for (int f = 0; f < kBlockFilters; ++f) SEMISPARSE_UNROLL for (int v = 0; v < V; ++v)
          acc[f][v] = S::set1(0.0f);
    } else if (init != nullptr) {
      SEMISPARSE_UNROLL for (int f = 0; f < kBlockFilters; ++f) {
        const Reg value = S::set1(init[f]);
        SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) acc[f][v] = value;
      }
    } else {
      const float* from_sums = sums;
      SEMISPARSE_UNROLL for (int f = 0; f < kBlockFilters; ++f, from_sums += stride) {
        asm("" : "+r"(from_sums));
        SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) acc[f][v] = S::load(from_sums + v * S::lanes);
      }
    }
    const float* w = runs.weights;
    const uint16_t* n = runs.counts;
    run<15>(acc, from, rows, w, n[15]);
    if (n[0] != 0) {  // dense weights and patterns shared by 4 filters have no other run
      run<7>(acc, from, rows, w, n[7]);
      run<11>(acc, from, rows, w, n[11]);
      run<13>(acc, from, rows, w, n[13]);
      run<14>(acc, from, rows, w, n[14]);
      run<3>(acc, from, rows, w, n[3]);
      run<5>(acc, from, rows, w, n[5]);
      run<9>(acc, from, rows, w, n[9]);
      run<6>(acc, from, rows, w, n[6]);
      run<10>(acc, from, rows, w, n[10]);
      run<12>(acc, from, rows, w, n[12]);
      run<1>(acc, from, rows, w, n[1]);
      run<2>(acc, from, rows, w, n[2]);
      run<4>(acc, from, rows, w, n[4]);
      run<8>(acc, from, rows, w, n[8]);
    }
    SEMISPARSE_UNROLL for (int f = 0; f < kBlockFilters; ++f, sums += stride) {
      asm("" : "+r"(sums));
      SEMISPARSE_UNROLL for (int v = 0; v < V; ++v) {
        float* const to = sums + v * S::lanes;
        if constexpr (apart) {
          const auto before = init != nullptr ? Float::set1(init[f]) : Float::loadu(to);
          Float::storeu(to, Float::add(before, S::widen(acc[f][v])));
        } else {
          S::store(to, acc[f][v]);
        }
      }
    }
  }
};

template <class S, int V = S::max_vectors>
void gemm(int vectors, const typename S::Elem* panel, const RunBlock& block, const float* init, float* acc,
          size_t acc_stride) {
  if (vectors == V)
    return MicroKernel<S, V, PackedRows<S, V>>::block({reinterpret_cast<const char*>(panel)}, block.rows,
                                                      block, init, acc, acc_stride);
  if constexpr (V > 1) return gemm<S, V - 1>(vectors, panel, block, init, acc, acc_stride);
}

template <class S, int V = S::max_vectors>
void gemm_direct(int vectors, const typename S::Elem* const* starts, const uint32_t* offsets,
                 const RunBlock& block, const float* init, float* acc, size_t acc_stride) {
  if (vectors == V) {
    if constexpr (S::in_program_order && V > 1) {
      int parts = 1, first = V;
      for (int v = V - 1; v > 0; --v)
        if (starts[v] != starts[v - 1] + S::lanes) ++parts, first = v;
      const auto run = [&](auto length) {
        constexpr int First = length;
        const char* const start = reinterpret_cast<const char*>(starts[0]);
        const ptrdiff_t second = First < V ? reinterpret_cast<const char*>(starts[First % V]) - start : 0;
        MicroKernel<S, V, SideBySideRows<S, V, First>>::block({start, second}, offsets, block, init, acc,
                                                              acc_stride);
      };
      if (parts == 1) return run(std::integral_constant<int, V>());
      // Nearly all panels are that wide, and runs of columns are cut in such places.
      if constexpr (V > 4) {
        if (parts == 2 && first == 2) return run(std::integral_constant<int, 2>());
        if (parts == 2 && first == 4) return run(std::integral_constant<int, 4>());
      }
    }
    DirectRows<S, V> rows;
    for (int v = 0; v < V; ++v) rows.starts[v] = reinterpret_cast<const char*>(starts[v]);
    return MicroKernel<S, V, DirectRows<S, V>>::block(rows, offsets, block, init, acc, acc_stride);
  }
  if constexpr (V > 1) return gemm_direct<S, V - 1>(vectors, starts, offsets, block, init, acc, acc_stride);
}

}  // namespace semisparse
