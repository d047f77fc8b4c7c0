// SPDX-License-Identifier: Apache-2.0
// Weights in the order in which the kernels read them. Built once from the portable format; not
// stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "core/base/aligned.h"
#include "core/linear/kernels.h"

namespace semisparse {

struct PreparedLinear {
  struct Panel {
    PanelForm form = PanelForm::dense;
    int vectors = 1;
    int32_t first = 0;     // position of its first feature in `features`
    int32_t features = 0;  // of them; the last vector may have lanes to spare
    int64_t count = 0;     // see LinearPanelArgs
    AlignedBuffer weights;
    std::vector<uint16_t> inputs;
    std::vector<uint8_t> steps, lanes;
    size_t bytes = 0;
  };

  int64_t in_features = 0, out_features = 0;
  std::vector<int32_t> features;  // output feature at each position
  std::deque<Panel> panels;
  std::vector<size_t> tasks;  // panels [tasks[i], tasks[i + 1]) are worth handing to a thread
  size_t bytes = 0;
};

// `packed`: portable bytes of a weight of shape (OUT, IN, 1, 1) without groups. Throws Error on anything
// else.
std::shared_ptr<const PreparedLinear> prepare_linear(const uint8_t* packed, size_t size,
                                                     const LinearKernels& kernels);

}  // namespace semisparse
