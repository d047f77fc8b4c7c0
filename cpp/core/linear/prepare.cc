// SPDX-License-Identifier: Apache-2.0
#include "core/linear/prepare.h"

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "core/weights/decode.h"

namespace semisparse {
namespace {

// Enough bytes of weights for a task to be worth handing out.
constexpr size_t kTaskBytes = 64 << 10;

// The weights of one output feature that are not zero, inputs increasing.
struct Feature {
  std::vector<uint32_t> inputs;
  std::vector<float> weights;
};

using Panel = PreparedLinear::Panel;

// A vector's features as the sliding form wants them. See kernels.h.
struct Sliding {
  std::vector<float> weights;
  std::vector<uint8_t> steps, lanes;

  Sliding(const Feature* features, int count, int64_t in_features, const LinearKernels& kernels) {
    const size_t width = static_cast<size_t>(kernels.lanes);
    std::vector<size_t> next(width, 0), seen(width, 0);
    std::vector<uint64_t> used(width, 0);  // bit j: the window's input j has a weight
    for (int64_t begin = 0; begin < in_features; begin += kernels.lanes) {
      const int64_t half = begin + kernels.lanes, end = half + kernels.lanes;
      for (int l = 0; l < count; ++l) {
        const size_t f = static_cast<size_t>(l);
        used[f] >>= width;
        for (; seen[f] < features[l].inputs.size() && features[l].inputs[seen[f]] < end; ++seen[f])
          used[f] |= uint64_t{1} << (features[l].inputs[seen[f]] - begin);
      }
      int in_place = 0;
      for (;; ++in_place) {
        bool left = false;
        for (int l = 0; l < count && !left; ++l) {
          const auto& inputs = features[l].inputs;
          const size_t at = next[static_cast<size_t>(l)];
          left = at < inputs.size() && inputs[at] < half;
        }
        if (!left) break;
        for (int l = 0; l < kernels.lanes; ++l) {
          const size_t f = static_cast<size_t>(l);
          // A lane that waits multiplies zero with an input whose own weight is zero, where there is one.
          int lane = ~used[f] != 0 ? __builtin_ctzll(~used[f]) : 0;
          float weight = 0.0f;
          if (lane >= 2 * kernels.lanes) lane = 0;
          if (l < count && next[f] < features[l].inputs.size() && features[l].inputs[next[f]] < end) {
            lane = static_cast<int>(features[l].inputs[next[f]] - begin);
            weight = features[l].weights[next[f]++];
          }
          weights.push_back(weight);
          lanes.push_back(static_cast<uint8_t>(lane * kernels.byte_scale));
        }
      }
      steps.push_back(static_cast<uint8_t>(in_place));
    }
  }

  size_t bytes() const { return 4 * weights.size() + steps.size() + lanes.size(); }
};

class Builder final : public KernelVisitor {
 public:
  Builder(PreparedLinear* out, const LinearKernels& kernels)
      : out_(out), kernels_(kernels), group_(static_cast<size_t>(kDenseVectors * kernels.lanes)) {}

  // Positions come in order, so the features of one dense panel at a time are enough.
  void kernel(int64_t, int64_t position, int64_t channel, const uint16_t*, int, const float* w) override {
    advance(position);
    if (*w == 0.0f) return;  // -0.0 is stored, but adds nothing
    Feature& feature = group_[static_cast<size_t>(position - first_)];
    feature.inputs.push_back(static_cast<uint32_t>(channel));
    feature.weights.push_back(*w);
  }

  void finish() {
    advance(out_->out_features);
    out_->tasks.push_back(0);
    size_t bytes = 0;
    for (size_t p = 0; p < out_->panels.size(); ++p) {
      out_->bytes += out_->panels[p].bytes;
      bytes += out_->panels[p].bytes;
      if (bytes >= kTaskBytes || p + 1 == out_->panels.size()) {
        out_->tasks.push_back(p + 1);
        bytes = 0;
      }
    }
  }

 private:
  void advance(int64_t position) {
    const int64_t width = static_cast<int64_t>(group_.size());
    while (first_ + width <= position || (position == out_->out_features && first_ < position)) {
      flush(static_cast<int>(std::min(width, out_->out_features - first_)));
      first_ += width;
      for (Feature& feature : group_) {
        feature.inputs.clear();
        feature.weights.clear();
      }
    }
  }

  // `count` features become one dense panel or one sparse panel for each vector, whichever is smaller.
  void flush(int count) {
    const int lanes = kernels_.lanes, vectors = (count + lanes - 1) / lanes;
    const int64_t padded = (out_->in_features + 3) / 4 * 4;
    const size_t dense = 4 * static_cast<size_t>(padded * vectors * lanes);
    std::vector<Sliding> sliding;
    size_t sparse = 0, nonzeros = 0;
    for (int f = 0; f < count; ++f) nonzeros += group_[static_cast<size_t>(f)].inputs.size();
    if (5 * nonzeros < dense) {  // otherwise sliding cannot win, nor sharing by much
      for (int v = 0; v < vectors; ++v) {
        const int used = std::min(lanes, count - v * lanes);
        const Feature* const features = &group_[static_cast<size_t>(v * lanes)];
        sliding.emplace_back(features, used, out_->in_features, kernels_);
        sparse += std::min(sliding.back().bytes(), shared_bytes(features, used));
      }
    }
    if (sliding.empty() || sparse >= dense) return add_dense(count, vectors, padded);
    for (int v = 0; v < vectors; ++v) {
      const int used = std::min(lanes, count - v * lanes);
      const Feature* const features = &group_[static_cast<size_t>(v * lanes)];
      Panel& panel = add(v * lanes, used, 1);
      Sliding& s = sliding[static_cast<size_t>(v)];
      if (shared_bytes(features, used) <= s.bytes()) {
        fill_shared(features, used, &panel);
      } else {
        panel.form = PanelForm::sliding;
        panel.count = static_cast<int64_t>(s.steps.size());
        std::copy(s.weights.begin(), s.weights.end(),
                  panel.weights.reserve(std::max<size_t>(1, s.weights.size())));
        panel.bytes = s.bytes();
        panel.steps = std::move(s.steps);
        panel.lanes = std::move(s.lanes);
      }
    }
  }

  Panel& add(int offset, int features, int vectors) {
    out_->panels.emplace_back();
    Panel& panel = out_->panels.back();
    panel.first = static_cast<int32_t>(first_) + offset;
    panel.features = features;
    panel.vectors = vectors;
    return panel;
  }

  void add_dense(int count, int vectors, int64_t padded) {
    Panel& panel = add(0, count, vectors);
    const size_t row = static_cast<size_t>(vectors * kernels_.lanes),
                 size = static_cast<size_t>(padded) * row;
    float* const to = panel.weights.reserve(size);
    std::fill(to, to + size, 0.0f);
    for (int f = 0; f < count; ++f) {
      const Feature& feature = group_[static_cast<size_t>(f)];
      for (size_t k = 0; k < feature.inputs.size(); ++k)
        to[feature.inputs[k] * row + static_cast<size_t>(f)] = feature.weights[k];
    }
    panel.count = padded;
    panel.bytes = 4 * size;
  }

  // Bytes of a vector in shared form; very many if its features use different inputs.
  size_t shared_bytes(const Feature* features, int count) const {
    for (int f = 1; f < count; ++f)
      if (features[f].inputs != features[0].inputs) return SIZE_MAX / 4;
    if (out_->in_features > int64_t{1} << 16) return SIZE_MAX / 4;  // numbers have two bytes
    return features[0].inputs.size() * (4 * static_cast<size_t>(kernels_.lanes) + 2);
  }

  void fill_shared(const Feature* features, int count, Panel* panel) const {
    const size_t row = static_cast<size_t>(kernels_.lanes), size = features[0].inputs.size() * row;
    float* const to = panel->weights.reserve(std::max<size_t>(1, size));
    std::fill(to, to + size, 0.0f);
    for (int f = 0; f < count; ++f)
      for (size_t k = 0; k < features[f].weights.size(); ++k)
        to[k * row + static_cast<size_t>(f)] = features[f].weights[k];
    panel->form = PanelForm::shared;
    panel->inputs.assign(features[0].inputs.begin(), features[0].inputs.end());
    panel->count = static_cast<int64_t>(panel->inputs.size());
    panel->bytes = 4 * size + 2 * panel->inputs.size();
  }

  PreparedLinear* out_;
  const LinearKernels& kernels_;
  std::vector<Feature> group_;
  int64_t first_ = 0;
};

}  // namespace

std::shared_ptr<const PreparedLinear> prepare_linear(const uint8_t* packed, size_t size,
                                                     const LinearKernels& kernels) {
  const PayloadView view = checked_payload(packed, size);
  const WeightShape shape = header_shape(view.header);
  check(shape.taps() == 1 && shape.groups == 1, "packed weight has shape (", shape.out_channels, ", ",
        shape.in_channels_per_group, ", ", shape.kernel_h, ", ", shape.kernel_w,
        ") and groups=", shape.groups,
        ", but a linear layer needs one packed from (OUT, IN) or (OUT, IN, 1, 1) without groups.");
  auto out = std::make_shared<PreparedLinear>();
  out->in_features = shape.in_channels_per_group;
  out->out_features = shape.out_channels;
  for (const uint32_t feature : stored_order(view)) out->features.push_back(static_cast<int32_t>(feature));
  Builder builder(out.get(), kernels);
  visit_kernels(view, builder);
  builder.finish();
  return out;
}

}  // namespace semisparse
