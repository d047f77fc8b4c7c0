// SPDX-License-Identifier: Apache-2.0
#include "core/linear/linear.h"

#include <algorithm>
#include <mutex>

#include "core/base/aligned.h"
#include "core/base/error.h"
#include "core/cpu/cpu.h"
#include "core/linear/kernels.h"
#include "core/linear/prepare.h"

namespace semisparse {

struct LinearWeight::Impl {
  mutable std::mutex mutex;
  std::shared_ptr<const PreparedLinear> prepared;
};

LinearWeight::LinearWeight() : impl_(std::make_unique<Impl>()) {}
LinearWeight::~LinearWeight() = default;

size_t LinearWeight::bytes() const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->prepared != nullptr ? impl_->prepared->bytes : 0;
}

namespace {

void run_panel(const LinearGeometry& g, const PreparedLinear& weight, const PreparedLinear::Panel& panel,
               const LinearKernels& kernels, const float* x, size_t x_stride,
               const LinearOperands& operands) {
  constexpr int kMostFeatures = 64, kMostRows = 16;
  alignas(64) float bias[kMostFeatures] = {};
  alignas(64) float out[kMostRows * kMostFeatures];
  const int width = panel.vectors * kernels.lanes;
  check(width <= kMostFeatures && kernels.max_rows <= kMostRows, "kernel ", kernels.isa, " is too wide.");
  const int32_t* const features = &weight.features[static_cast<size_t>(panel.first)];
  if (operands.bias != nullptr)
    for (int32_t f = 0; f < panel.features; ++f) bias[f] = operands.bias[features[f]];
  LinearPanelArgs args;
  args.x_stride = x_stride;
  args.vectors = panel.vectors;
  args.count = panel.count;
  args.weights = panel.weights.data();
  args.inputs = panel.inputs.data();
  args.steps = panel.steps.data();
  args.lanes = panel.lanes.data();
  args.bias = bias;
  args.activation = operands.activation;
  args.out = out;
  for (int64_t row = 0; row < g.rows; row += args.rows) {
    args.rows = static_cast<int>(std::min<int64_t>(kernels.max_rows, g.rows - row));
    args.x = x + static_cast<size_t>(row) * x_stride;
    switch (panel.form) {
      case PanelForm::dense:
        kernels.dense(args);
        break;
      case PanelForm::shared:
        kernels.shared(args);
        break;
      case PanelForm::sliding:
        kernels.sliding(args);
        break;
    }
    for (int r = 0; r < args.rows; ++r) {
      float* const to = operands.output + (row + r) * g.out_features;
      for (int32_t f = 0; f < panel.features; ++f) to[features[f]] = out[r * width + f];
    }
  }
}

// Rows whose inputs stay in half of the L2 cache while all weights go by.
int64_t block_rows(const LinearKernels& kernels, size_t x_stride) {
  const size_t rows = cpu_info().l2_bytes / 2 / (4 * x_stride);
  const size_t together = static_cast<size_t>(kernels.max_rows);
  return static_cast<int64_t>(std::max(rows / together, size_t{1}) * together);
}

void run(const LinearGeometry& all, const PreparedLinear& weight, const LinearKernels& kernels,
         const LinearOperands& all_operands, Parallel& parallel) {
  static thread_local AlignedBuffer buffer;
  // Zeros behind each row, for windows that reach past it.
  const size_t in = static_cast<size_t>(all.in_features), lanes = static_cast<size_t>(kernels.lanes);
  const size_t x_stride = (in + lanes - 1) / lanes * lanes + 3 * lanes;
  const int64_t together = std::min(block_rows(kernels, x_stride), all.rows);
  float* const x = buffer.reserve(static_cast<size_t>(together) * x_stride);
  for (int64_t first = 0; first < all.rows; first += together) {
    LinearGeometry g = all;
    g.rows = std::min(together, all.rows - first);
    LinearOperands operands = all_operands;
    operands.output += first * g.out_features;
    for (int64_t r = 0; r < g.rows; ++r) {
      const float* const from = operands.input + (first + r) * operands.row_stride;
      float* const to = x + static_cast<size_t>(r) * x_stride;
      std::copy(from, from + in, to);
      std::fill(to + in, to + x_stride, 0.0f);
    }
    parallel.run(static_cast<int64_t>(weight.tasks.size()) - 1, [&](int64_t task) {
      const size_t t = static_cast<size_t>(task);
      for (size_t p = weight.tasks[t]; p < weight.tasks[t + 1]; ++p)
        run_panel(g, weight, weight.panels[p], kernels, x, x_stride, operands);
    });
  }
}

}  // namespace

void linear(const LinearGeometry& g, LinearWeight& weight, const uint8_t* packed, size_t size,
            const LinearOperands& operands, Parallel& parallel) {
  check(g.rows >= 0 && g.in_features >= 1 && g.out_features >= 1, "linear layer of ", g.rows, " rows, ",
        g.in_features, " input and ", g.out_features, " output features: expected at least 0, 1 and 1.");
  const LinearKernels& kernels = selected_linear_kernels();
  std::shared_ptr<const PreparedLinear> prepared;
  {
    auto& impl = weight.impl();
    std::lock_guard<std::mutex> lock(impl.mutex);
    if (impl.prepared == nullptr) impl.prepared = prepare_linear(packed, size, kernels);
    prepared = impl.prepared;
  }
  check(prepared->out_features == g.out_features && prepared->in_features == g.in_features,
        "packed weight has shape (", prepared->out_features, ", ", prepared->in_features,
        "), but weight_shape of this call is (", g.out_features, ", ", g.in_features,
        "): pass the shape that was packed.");
  if (g.rows > 0) run(g, *prepared, kernels, operands, parallel);
}

}  // namespace semisparse
