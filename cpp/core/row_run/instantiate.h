// SPDX-License-Identifier: Apache-2.0
// Makes one instruction set's RowRunKernels, or HalfKernels, out of its Vec. Included once by each <isa>.cc.
#pragma once

#include "core/row_run/full_blocks.h"
#include "core/row_run/micro_kernel.h"
#include "core/row_run/pack_panel.h"
#include "core/row_run/pad_plane.h"
#include "core/row_run/row_run.h"
#include "core/row_run/split_plane.h"
#include "core/row_run/store_panel.h"
#include "core/row_run/tail.h"

#define SEMISPARSE_ROW_RUN(isa_, tile_)                                     \
  namespace semisparse {                                                    \
  static_assert(isa_::Vec::max_vectors <= kMaxVectors, "see kMaxVectors");  \
  extern const RowRunKernels row_run_##isa_;                                \
  const RowRunKernels row_run_##isa_ = {#isa_,                              \
                                        "row_run_f32_" tile_ "_" #isa_,     \
                                        isa_::Vec::lanes,                   \
                                        isa_::Vec::max_vectors,             \
                                        TailKernel<isa_::Vec>::max_columns, \
                                        gemm<isa_::Vec>,                    \
                                        gemm_direct<isa_::Vec>,             \
                                        FullBlocks<isa_::Vec>::blocks,      \
                                        gemm_full<isa_::Vec>(),             \
                                        pad_plane<isa_::Vec>,               \
                                        split_plane<isa_::Vec>,             \
                                        pack_panel<isa_::Vec>,              \
                                        pack_tail<isa_::Vec>,               \
                                        TailKernel<isa_::Vec>::gemm,        \
                                        TailKernel<isa_::Vec>::finish,      \
                                        store_panel<isa_::Vec>};            \
  }

#define SEMISPARSE_ROW_RUN_HALF(isa_, tile_)                               \
  namespace semisparse {                                                   \
  static_assert(isa_::Vec::max_vectors <= kMaxVectors, "see kMaxVectors"); \
  extern const HalfKernels row_run_##isa_;                                 \
  const HalfKernels row_run_##isa_ = {#isa_,                               \
                                      "row_run_f16_" tile_ "_" #isa_,      \
                                      isa_::Vec::lanes,                    \
                                      isa_::Vec::max_vectors,              \
                                      0,                                   \
                                      gemm<isa_::Vec>,                     \
                                      gemm_direct<isa_::Vec>,              \
                                      0,                                   \
                                      nullptr,                             \
                                      pad_plane<isa_::Vec>,                \
                                      split_plane<isa_::Vec>,              \
                                      pack_panel<isa_::Vec>,               \
                                      nullptr,                             \
                                      nullptr,                             \
                                      nullptr,                             \
                                      store_panel<isa_::Vec>};             \
  }
