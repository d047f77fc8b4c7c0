// SPDX-License-Identifier: Apache-2.0
// Winograd convolution F(MxM, RxR) (Lavin & Gray, arXiv:1509.09308): M = 4 or 2 for 3x3 kernels, M = 4 for
// 4x4.
//
// The output is cut into tiles of MxM pixels. With P = M + R - 1 the input patch of PxP pixels under a tile
// becomes P*P values, and so does every kernel; for each of these P*P *planes* there is one matrix product
// [filters x channels] . [channels x tiles], done by the same row-run kernels as im2col: a tile is a column.
// A whole kernel that is zero (connectivity) is skipped in every plane, and so is a tile whose pixels are all
// masked. Zeros inside a kernel (patterns) save nothing here.
//
// A convolution of stride s is one of stride 1 over the s*s phases of its input (conv2d/phases.h), each with
// every s-th tap: 7x7 of stride 2, the stem of a ResNet, is 4x4 over four times the channels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/conv2d/conv2d.h"
#include "core/winograd/size.h"
#include "core/winograd/tile_plan.h"

namespace semisparse {

// A kernel of taps x taps weights to its planes, row-major. In double: done once for each weight.
void winograd_transform_weight(WinogradSize size, const float* taps, float* planes);

// One channel of a panel: from pixels to the P*P planes of its tiles.
struct TileInputArgs {
  const float* in;  // the channel without padding
  int64_t height, width, stride_h;
  int64_t pad_h, pad_w;
  const TilePlan* plan;
  const Panel* panel;
  float* scratch;       // tile_scratch() floats
  float* out;           // plane p, vector v of the panel at out + p * plane_stride + v * lanes
  size_t plane_stride;  // floats
};

// One filter of a panel: from the P*P planes of its tiles to output pixels.
struct TileOutputArgs {
  const float* sums;  // plane p, vector v of the panel at sums + p * plane_stride + v * lanes
  size_t plane_stride;
  const TilePlan* plan;
  const Panel* panel;
  float* scratch;  // tile_scratch() floats
  float bias, fill;
  const float* residual;  // this filter's output plane, or null
  float* output;          // this filter's output plane
  Activation activation;
};

// One instruction set's kernels for one size.
struct WinogradKernels {
  const char* isa;
  const char* name;
  WinogradSize size;
  void (*input)(const TileInputArgs& args);
  void (*output)(const TileOutputArgs& args);
};

// Floats of scratch memory that `input` and `output` need for a panel of the plan.
size_t tile_scratch(const TilePlan& plan);

// Every kernel set compiled into this library, best first.
const std::vector<const WinogradKernels*>& winograd_kernels(WinogradSize size);

// The set of the selected instruction set.
const WinogradKernels& selected_winograd(WinogradSize size);

// The size that computes this convolution in tiles of tile x tile pixels, if there is one.
std::optional<WinogradSize> winograd_size(const Conv2dGeometry& geometry, int tile);

// Whether weights over so many tiles are laid out for blocks of full rows (PreparedWeight::full), since the
// tiles leave much of their vectors empty or fill just one. every_kernel: none of the kernels is zero.
bool multiplies_full_blocks(const Conv2dGeometry& geometry, int64_t tiles, bool every_kernel);

struct KernelPlanes;
struct PreparedWeight;

// How the kernels of this convolution are prepared for winograd_conv2d.
KernelPlanes winograd_weight_planes(const Conv2dGeometry& geometry, const TilePlan& plan, bool every_kernel);

// Channels in a chunk of the weights.
int winograd_chunk(const Conv2dGeometry& geometry, const TilePlan& plan, bool every_kernel);

// `weight`: made with winograd_weight_planes and that chunk.
void winograd_conv2d(const Conv2dGeometry& geometry, const PreparedWeight& weight, const TilePlan& plan,
                     const Conv2dOperands& operands, Parallel& parallel);

}  // namespace semisparse
