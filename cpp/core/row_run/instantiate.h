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

#define SEMISPARSE_ROW_RUN(isa_, tile_) SEMISPARSE_ROW_RUN_SET(isa_, #isa_, tile_)

// set_: namespace of the Vec, and the name of its kernels among those of one instruction set.
#define SEMISPARSE_ROW_RUN_SET(set_, isa_, tile_)                           \
  namespace semisparse {                                                    \
  static_assert(set_::Vec::max_vectors <= kMaxVectors, "see kMaxVectors");  \
  extern const RowRunKernels row_run_##set_;                                \
  const RowRunKernels row_run_##set_ = {isa_,                               \
                                        "row_run_f32_" tile_ "_" isa_,      \
                                        set_::Vec::lanes,                   \
                                        set_::Vec::max_vectors,             \
                                        TailKernel<set_::Vec>::max_columns, \
                                        set_::Vec::equal_runs,              \
                                        gemm<set_::Vec>,                    \
                                        gemm_direct<set_::Vec>,             \
                                        FullBlocks<set_::Vec>::blocks,      \
                                        gemm_full<set_::Vec>(),             \
                                        pad_plane<set_::Vec>,               \
                                        split_plane<set_::Vec>,             \
                                        pack_panel<set_::Vec>,              \
                                        pack_tail<set_::Vec>,               \
                                        TailKernel<set_::Vec>::gemm,        \
                                        TailKernel<set_::Vec>::finish,      \
                                        store_panel<set_::Vec>,             \
                                        activate_floats<set_::Vec>};        \
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
                                      isa_::Vec::equal_runs,               \
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
                                      store_panel<isa_::Vec>,              \
                                      activate_floats<isa_::Vec>};         \
  }
