// SPDX-License-Identifier: Apache-2.0
// One instruction set's depthwise convolution of one plane, and the registry of all of them.
//
// Output columns lie along the vectors. The rows that are needed are first copied between zeros, the columns
// of a row dealt out to as many *phases* as the horizontal stride is: column q goes to place q / stride of
// phase q % stride. Then every tap of neighbouring output pixels is a load of neighbouring elements, whatever
// the stride and dilation. Several output rows are computed at a time, so that a loaded vector serves all the
// rows whose windows hold it. Where loads can be masked, kernels of 3x3 and 5x5 with strides of 1 and 2 read
// the input itself, and the mask puts in the zeros: small planes would spend most of their time on the
// copies.
#pragma once

#include <cstdint>
#include <vector>

#include "core/conv2d/conv2d.h"

namespace semisparse {

// Where the phases lie: plain numbers only.
struct DepthwiseLayout {
  int64_t phase;  // elements of one phase of a row
  int64_t row;    // elements between rows: stride_w phases
};

struct DepthwiseCopyArgs {
  const Conv2dGeometry* geometry;
  DepthwiseLayout layout;
  const float* in;              // the plane without padding, neighbouring pixels of a row side by side
  int64_t stride_h;             // elements between its rows
  int64_t first_row, last_row;  // rows of the padded plane
  float* out;
};

struct DepthwiseArgs {
  const Conv2dGeometry* geometry;
  DepthwiseLayout layout;
  const float* in;   // copied rows; the first is that of the first tap of output row `first`. In place: the
                     // plane without padding, neighbouring pixels of a row side by side
  int64_t stride_h;  // in place: elements between its rows
  int64_t first, last;  // output rows
  int64_t out_w;
  const float* weight;  // of the output channel
  float bias, fill;
  const uint32_t* mask;   // for each output row and vector of it, bit l: pixel l is computed; or null
  const float* residual;  // the channel's whole plane, or null
  float* output;          // the channel's whole plane
  Activation activation;
};

struct DepthwiseKernels {
  const char* isa;
  int lanes;
  void (*copy)(const DepthwiseCopyArgs& args);
  void (*plane)(const DepthwiseArgs& args);
  // The same without a copy, for geometries that depthwise_in_place allows; null where loads cannot be
  // masked.
  void (*plane_in_place)(const DepthwiseArgs& args);
};

bool depthwise_in_place(const Conv2dGeometry& geometry, int lanes);

// The layout that fits what the kernels read: up to a vector past the last column.
DepthwiseLayout depthwise_layout(const Conv2dGeometry& geometry, int lanes);

// Every kernel set compiled into this library, best first.
const std::vector<const DepthwiseKernels*>& depthwise_kernels();

// The best one that this machine supports, or the one named by SEMISPARSE_ISA.
const DepthwiseKernels& selected_depthwise_kernels();

}  // namespace semisparse
