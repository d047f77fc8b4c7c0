// SPDX-License-Identifier: Apache-2.0
// One instruction set's kernels for linear layers, and the registry of all of them.
//
// With one row every weight is used once, so time is the bytes of weights read, and the kernels are about
// reading few of them, in one stream. Output features lie along the vectors; a *panel* is one or two vectors
// of them with everything that is needed for their sums, in one of three forms, whichever has fewest bytes:
//   dense    for every input one weight for each feature: 4 bytes a weight;
//   shared   the same for the inputs that all features of the panel use (block-pruned layers), with their
//            numbers;
//   sliding  any zeros. A window of 2 vectors of inputs slides over the row, one vector at a time. In each
//            place there are as many *steps* as it takes to use up the weights of the window's first half; a
//            step has for each feature its next weight in the window, and the number of its input there: one
//            lane permute of the window instead of a gather. Features that have no weight left in the first
//            half go ahead in the second, so that lanes seldom wait: of 16 lanes with 20% of the weights
//            0.77 do work, against 0.61 for windows that do not overlap.
// Several rows share one pass over a panel. Measured against the sparse GEMM of convolutions with rows as
// columns, which has to transpose input and output and has short runs where weights are unstructured, this is
// faster from 1 row (by far) to 256 rows (2048 -> 1000 features, 80% of the weights removed: 1.3 times).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/conv2d/conv2d.h"

namespace semisparse {

enum class PanelForm : uint8_t { dense, shared, sliding };
constexpr int kDenseVectors = 2;  // most vectors of a panel; other forms have one

// What a kernel reads of one panel: plain numbers and pointers only.
struct LinearPanelArgs {
  int rows;         // 1 to max_rows
  const float* x;   // rows of inputs, zeros behind them for 3 vectors at least
  size_t x_stride;  // elements between rows of x
  int vectors;      // dense: 1 or 2
  int64_t count;    // dense: inputs, a multiple of 4; shared: inputs used; sliding: places of the window
  const float* weights;
  const uint16_t* inputs;  // shared: number of each input used
  const uint8_t* steps;    // sliding: steps in each place
  const uint8_t* lanes;    // sliding: for each step and feature the input's number in the window * byte_scale
  const float* bias;       // one value for each feature of the panel
  Activation activation;
  float* out;  // rows x (vectors * lanes) results
};

struct LinearKernels {
  const char* isa;
  int lanes;
  int max_rows;    // rows that share one pass over the weights
  int byte_scale;  // see LinearPanelArgs::lanes
  void (*dense)(const LinearPanelArgs& args);
  void (*shared)(const LinearPanelArgs& args);
  void (*sliding)(const LinearPanelArgs& args);
};

// Every kernel set compiled into this library, best first.
const std::vector<const LinearKernels*>& linear_kernels();

// The best one that this machine supports, or the one named by SEMISPARSE_ISA.
const LinearKernels& selected_linear_kernels();

}  // namespace semisparse
