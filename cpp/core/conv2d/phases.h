// SPDX-License-Identifier: Apache-2.0
// A strided convolution is one of stride 1 over the *phases* of its padded input: phase (y, x) holds every
// stride_h-th row from y on, and of it every stride_w-th pixel from x on. Its pixels lie side by side.
#pragma once

#include <cstdint>

#include "core/conv2d/conv2d.h"
#include "core/conv2d/padded_input.h"
#include "core/row_run/row_run.h"

namespace semisparse {

// The phases of one channel's padded plane, one after the other.
struct Phases {
  int64_t rows, pitch;    // of a phase
  int64_t floats, count;  // of a phase; of phases
  explicit Phases(const Conv2dGeometry& g);
};

// Rows [rows.first, rows.last) of every phase of images [first, first + count), all channels, any strides:
// phase by phase, channel by channel, image by image, `phase_floats` for each phase.
template <class E>
void split_images(const Conv2dGeometry& g, const BasicRowRunKernels<E>& kernels,
                  const BasicConstTensor4<E>& input, int64_t first, int64_t count, const RowRange& rows,
                  int64_t phase_floats, E* out, Parallel& parallel);

}  // namespace semisparse
