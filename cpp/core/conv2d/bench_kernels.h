// SPDX-License-Identifier: Apache-2.0
// The row-run kernels of a layer alone: its panels and blocks of filters in the order of the operator, but
// the panels are packed already, and nothing is stored.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "core/base/aligned.h"
#include "core/conv2d/direct.h"
#include "core/conv2d/im2col.h"
#include "core/conv2d/padded_input.h"
#include "core/weights/prepare.h"

namespace semisparse {

// Makes ready what the two algorithms make ready; each call then runs one of them. One image, one group,
// stride 1. `values` of the size of the padded input are what panels hold.
class KernelsAlone {
 public:
  KernelsAlone(const Conv2dGeometry& g, const std::vector<uint8_t>& packed, const uint8_t* mask,
               const std::vector<float>& values)
      : kernels_(selected_kernels()), input_(values) {
    const PackedInfo info = inspect_packed(packed.data(), packed.size());
    const double density = static_cast<double>(info.nonzeros) / static_cast<double>(info.shape.elements());
    columns_ = im2col_plan<float>(g, mask, /*dense=*/false);  // a tail has kernels of its own
    packed_weight_ =
        prepare_packed(packed.data(), packed.size(),
                       {im2col_chunk<float>(g, *columns_, density), im2col_equal_runs<float>(*columns_)});
    runs_ = direct_plan<float>(g, mask);
    direct_weight_ = prepare_packed(packed.data(), packed.size(), {direct_chunk<float>(g, *runs_, density)});
    layout_ = direct_layout<float>(g, *direct_weight_, *runs_);
    input_.resize(input_.size() + static_cast<size_t>(kernels_.lanes));
    size_t rows = 0;
    for (const auto& chunk : packed_weight_->groups[0].chunks)
      rows = std::max(rows, static_cast<size_t>(chunk.channels * g.weight.taps()));
    const size_t width = static_cast<size_t>(kernels_.max_vectors * kernels_.lanes);
    const size_t size = rows * width;
    for (size_t i = 0; i < size; ++i) panel_.push_back(values[i % values.size()]);
    panel_sums_ = static_cast<size_t>(packed_weight_->groups[0].blocks) * kBlockFilters * width;
    const size_t together = static_cast<size_t>(im2col_panels_together(*columns_, *packed_weight_));
    sums_.resize(panel_sums_ * std::min(together, std::max<size_t>(columns_->panels.size(), 1)));
  }

  // On packed panels. In the operator each has just been packed, so here all lie in the same place.
  void im2col() {
    run(*columns_, *packed_weight_, im2col_panels_together(*columns_, *packed_weight_),
        [&](const Panel& panel, const RunBlock& block, const float* init, float* sums, size_t width) {
          kernels_.gemm(panel.vectors, panel_.data(), block, init, sums, width);
        });
  }

  // On a padded image.
  void direct() {
    run(*runs_, *direct_weight_, 1,
        [&](const Panel& panel, const RunBlock& block, const float* init, float* sums, size_t width) {
          const float* starts[kMaxVectors];
          for (int v = 0; v < panel.vectors; ++v)
            starts[v] = input_.data() + runs_->vectors[static_cast<size_t>(panel.first_vector + v)].base;
          kernels_.gemm_direct(panel.vectors, starts,
                               layout_.offsets.data() + (block.rows - direct_weight_->rows.data()), block,
                               init, sums, width);
        });
  }

 private:
  template <class Multiply>
  void run(const ColumnPlan& plan, const PreparedWeight& weight, int64_t together, Multiply multiply) {
    static const float bias[kBlockFilters] = {};
    const PreparedWeight::Group& group = weight.groups[0];
    const size_t panels = plan.panels.size(), step = static_cast<size_t>(together);
    for (size_t first = 0; first < panels; first += step)
      for (const PreparedWeight::Chunk& chunk : group.chunks)
        for (size_t p = first; p < std::min(first + step, panels); ++p) {
          const Panel& panel = plan.panels[p];
          const size_t width = static_cast<size_t>(panel.vectors * kernels_.lanes);
          float* const sums = sums_.data() + (p - first) * panel_sums_;
          for (int b = 0; b < group.blocks && width > 0; ++b)
            multiply(panel, weight.blocks[chunk.first_block + static_cast<size_t>(b)],
                     &chunk == group.chunks.data() ? bias : nullptr,
                     sums + static_cast<size_t>(b) * kBlockFilters * width, width);
        }
  }

  const RowRunKernels& kernels_;
  std::shared_ptr<const ColumnPlan> columns_, runs_;
  std::shared_ptr<const PreparedWeight> packed_weight_, direct_weight_;
  DirectLayout layout_;
  std::vector<float> input_;
  size_t panel_sums_ = 0;  // floats of a panel's sums
  std::vector<float, AlignedAllocator<float>> panel_, sums_;
};

}  // namespace semisparse
