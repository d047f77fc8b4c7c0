// SPDX-License-Identifier: Apache-2.0
// One instruction set's loops over rows of floats, and the registry of all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/arrays/arrays.h"

namespace semisparse {

struct ArrayKernels {
  const char* isa;
  void (*activate)(Activation activation, const float* in, int64_t n, float* out);
  // out[i] = a[i * a_step] op b[i * b_step]; steps are 0 or 1.
  void (*combine)(Arithmetic op, const float* a, int64_t a_step, const float* b, int64_t b_step, int64_t n,
                  float* out);
  float (*sum)(const float* in, int64_t n);
  // Each of n floats twice.
  void (*repeat2)(const float* in, int64_t n, float* out);
  // `width` softmaxes side by side, of `count` entries each: entry i begins at in + i * in_step.
  void (*softmax_columns)(const float* in, int64_t in_step, int64_t count, int64_t width, float* out,
                          int64_t out_step);
  // One softmax of neighbouring entries.
  void (*softmax_row)(const float* in, int64_t count, float* out);
};

// Every kernel set compiled into this library, best first.
const std::vector<const ArrayKernels*>& array_kernels();

// The best one that this machine supports, or the one named by SEMISPARSE_ISA.
const ArrayKernels& selected_array_kernels();

}  // namespace semisparse
