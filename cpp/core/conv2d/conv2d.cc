// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/conv2d.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "core/base/aligned.h"
#include "core/base/error.h"
#include "core/columns/column_plan.h"
#include "core/conv2d/padded_input.h"
#include "core/cpu/cpu.h"
#include "core/row_run/row_run.h"
#include "core/weights/prepare.h"

namespace semisparse {

struct PackedWeight::Impl {
  mutable std::mutex mutex;
  std::map<int, std::shared_ptr<const PreparedWeight>> by_chunk;  // key: channels in a chunk
};

PackedWeight::PackedWeight() : impl_(std::make_unique<Impl>()) {}
PackedWeight::~PackedWeight() = default;

size_t PackedWeight::bytes() const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  size_t total = 0;
  for (const auto& entry : impl_->by_chunk) total += entry.second->bytes();
  return total;
}

namespace {

// Padded copies of so many bytes at a time: images are done in slabs of the batch.
constexpr int64_t kSlabBytes = int64_t{8} << 20;

// Channels in a chunk: its panel fills half of the L1 cache, the other half is for sums and weights on their
// way.
int choose_chunk(const Conv2dGeometry& g, const ColumnPlan& plan, const RowRunKernels& kernels) {
  const int64_t row_bytes = int64_t{4} * kernels.lanes * std::max(plan.widest, 1);
  const int64_t rows = static_cast<int64_t>(cpu_info().l1_bytes) * 5 / 8 / row_bytes;
  const int64_t channels = std::clamp<int64_t>(rows / g.weight.taps(), 1, g.weight.in_channels_per_group);
  return static_cast<int>(std::min(channels, 65535 / g.weight.taps()));
}

// One panel of one image, a range of filter blocks.
struct Task {
  const Conv2dGeometry* geometry;
  const PreparedWeight* weight;
  const PreparedWeight::Group* group;
  const ColumnPlan* plan;
  const RowRunKernels* kernels;
  const Conv2dOperands* operands;
  const float* image;  // padded planes of the whole image
  int64_t n;
};

void run_panel(const Task& t, int64_t group_index, const Panel& panel, int block_begin, int block_end) {
  static thread_local AlignedBuffer panel_buffer, sum_buffer;
  static thread_local std::vector<const float*> channel_pointers;
  const Conv2dGeometry& g = *t.geometry;
  const PreparedWeight::Group& group = *t.group;
  const size_t width = static_cast<size_t>(panel.vectors) * static_cast<size_t>(t.kernels->lanes);
  const size_t taps = static_cast<size_t>(g.weight.taps());
  const int64_t plane = padded_plane(g), pixels = g.out_h() * g.out_w();
  const int blocks = block_end - block_begin;

  const auto filter_of = [&](int block, int f) -> int64_t {
    const int at = block * kBlockFilters + f;
    return at < group.filters ? t.weight->filters[static_cast<size_t>(group.first_position + at)] : -1;
  };

  float* sums = nullptr;
  if (panel.vectors > 0) {
    sums = sum_buffer.reserve(static_cast<size_t>(blocks) * kBlockFilters * width + 16);
    // Until a block's first rows come, its sums are its bias.
    static thread_local std::vector<char> started;
    started.assign(static_cast<size_t>(blocks), 0);
    const auto load_bias = [&](int block, float* bias) {
      for (int f = 0; f < kBlockFilters; ++f) {
        const int64_t filter = filter_of(block, f);
        bias[f] = t.operands->bias != nullptr && filter >= 0 ? t.operands->bias[filter] : 0.0f;
      }
    };
    static const RunBlock no_rows;
    PackArgs pack;
    pack.plan = t.plan;
    pack.panel = &panel;
    pack.kernel_h = static_cast<int>(g.weight.kernel_h);
    pack.kernel_w = static_cast<int>(g.weight.kernel_w);
    pack.tap_y = static_cast<int32_t>(g.dilation_h * padded_w(g));
    pack.tap_x = static_cast<int32_t>(g.dilation_w);
    const float* planes = t.image + group_index * g.weight.in_channels_per_group * plane;
    for (const PreparedWeight::Chunk& chunk : group.chunks) {
      channel_pointers.resize(static_cast<size_t>(chunk.channels));
      for (int32_t c = 0; c < chunk.channels; ++c)
        channel_pointers[static_cast<size_t>(c)] =
            planes + group.channels[static_cast<size_t>(chunk.first_channel + c)] * plane;
      float* packed = panel_buffer.reserve(static_cast<size_t>(chunk.channels) * taps * width);
      pack.channels = channel_pointers.data();
      pack.channel_count = chunk.channels;
      pack.out = packed;
      t.kernels->pack(pack);
      for (int b = block_begin; b < block_end; ++b) {
        const RunBlock& runs = t.weight->blocks[chunk.first_block + static_cast<size_t>(b)];
        if (runs.counts[15] == 0 && runs.counts[0] == 0) continue;
        const size_t i = static_cast<size_t>(b - block_begin);
        float bias[kBlockFilters];
        const float* init = nullptr;
        if (!started[i]) {
          load_bias(b, bias);
          init = bias;
          started[i] = 1;
        }
        t.kernels->gemm(panel.vectors, packed, width * sizeof(float), runs, init,
                        sums + i * kBlockFilters * width, width);
      }
    }
    for (int b = block_begin; b < block_end; ++b) {
      const size_t i = static_cast<size_t>(b - block_begin);
      if (started[i]) continue;
      float bias[kBlockFilters];
      load_bias(b, bias);
      t.kernels->gemm(panel.vectors, nullptr, 0, no_rows, bias, sums + i * kBlockFilters * width, width);
    }
  }

  StoreArgs store;
  store.plan = t.plan;
  store.panel = &panel;
  store.activation = t.operands->activation;
  for (int b = block_begin; b < block_end; ++b) {
    for (int f = 0; f < kBlockFilters; ++f) {
      const int64_t filter = filter_of(b, f);
      if (filter < 0) break;
      const int64_t offset = (t.n * g.out_channels() + filter) * pixels;
      store.acc =
          sums + (static_cast<size_t>(b - block_begin) * kBlockFilters + static_cast<size_t>(f)) * width;
      store.fill = t.operands->fill != nullptr ? t.operands->fill[filter] : 0.0f;
      store.residual = t.operands->residual != nullptr ? t.operands->residual + offset : nullptr;
      store.output = t.operands->output + offset;
      t.kernels->store(store);
    }
  }
}

void run(const Conv2dGeometry& g, const PreparedWeight& weight, const ColumnPlan& plan,
         const RowRunKernels& kernels, const Conv2dOperands& operands, Parallel& parallel) {
  static thread_local AlignedBuffer padded_buffer;
  const int64_t plane = padded_plane(g), channels = g.in_channels(), image = plane * channels;
  const int64_t slab = std::clamp<int64_t>(kSlabBytes / (4 * image), 1, std::max<int64_t>(g.batch, 1));
  float* padded =
      padded_buffer.reserve(static_cast<size_t>(slab * image) + static_cast<size_t>(plan.read_ahead));
  const int threads = parallel.threads();

  const int64_t groups = g.weight.groups, panels = static_cast<int64_t>(plan.panels.size());
  const int blocks = weight.groups[0].blocks;
  for (int64_t first = 0; first < g.batch; first += slab) {
    const int64_t images = std::min(slab, g.batch - first);
    // Enough work in a task to be worth handing out.
    const int64_t copy_channels = std::max<int64_t>(1, 65536 / plane);
    const int64_t copies = (channels + copy_channels - 1) / copy_channels;
    parallel.run(images * copies, [&](int64_t task) {
      const int64_t n = task / copies, c = task % copies * copy_channels;
      copy_padded(g, operands.input, first + n, c, std::min(copy_channels, channels - c),
                  padded + n * image + c * plane);
    });
    // Columns are the first thing to share out. Where they are too few, filters are: every share packs the
    // panel for itself. No sum is cut, so the result does not depend on the shares.
    const int64_t whole = images * groups * panels;
    int64_t shares = 1;
    if (threads > 1 && whole % threads != 0 && whole < 8 * threads)
      shares = std::clamp<int64_t>(blocks / 4, 1, threads);
    parallel.run(whole * shares, [&](int64_t task) {
      const int64_t share = task % shares, p = task / shares % panels,
                    group = task / shares / panels % groups;
      const int64_t n = task / shares / panels / groups;
      Task t{&g,
             &weight,
             &weight.groups[static_cast<size_t>(group)],
             &plan,
             &kernels,
             &operands,
             padded + n * image,
             first + n};
      run_panel(t, group, plan.panels[static_cast<size_t>(p)], static_cast<int>(blocks * share / shares),
                static_cast<int>(blocks * (share + 1) / shares));
    });
  }
}

std::shared_ptr<const ColumnPlan> plan_columns(const Conv2dGeometry& g, const uint8_t* mask,
                                               const RowRunKernels& kernels) {
  ColumnGeometry c;
  c.out_h = static_cast<int32_t>(g.out_h());
  c.out_w = static_cast<int32_t>(g.out_w());
  c.kernel_w = static_cast<int32_t>(g.weight.kernel_w);
  c.step_y = static_cast<int32_t>(g.stride_h * padded_w(g));
  c.step_x = static_cast<int32_t>(g.stride_w);
  c.tap_x = static_cast<int32_t>(g.dilation_w);
  return cached_column_plan(c, mask, kernels.lanes, kernels.max_vectors);
}

void check_shape(const WeightShape& found, const WeightShape& expected) {
  check(found.out_channels == expected.out_channels &&
            found.in_channels_per_group == expected.in_channels_per_group &&
            found.kernel_h == expected.kernel_h && found.kernel_w == expected.kernel_w &&
            found.groups == expected.groups,
        "packed weight has shape (", found.out_channels, ", ", found.in_channels_per_group, ", ",
        found.kernel_h, ", ", found.kernel_w, ") and groups=", found.groups,
        ", but weight_shape and groups of this call are (", expected.out_channels, ", ",
        expected.in_channels_per_group, ", ", expected.kernel_h, ", ", expected.kernel_w,
        ") and groups=", expected.groups, ": pass the shape that was packed.");
}

}  // namespace

void conv2d(const Conv2dGeometry& g, PackedWeight& weight, const uint8_t* packed, size_t size,
            const uint8_t* mask, const Conv2dOperands& operands, Parallel& parallel) {
  g.validate();
  const RowRunKernels& kernels = selected_kernels();
  const auto plan = plan_columns(g, mask, kernels);
  const int chunk = choose_chunk(g, *plan, kernels);
  std::shared_ptr<const PreparedWeight> prepared;
  {
    auto& impl = weight.impl();
    std::lock_guard<std::mutex> lock(impl.mutex);
    auto& slot = impl.by_chunk[chunk];
    if (slot == nullptr) {
      check_shape(inspect_packed(packed, size).shape, g.weight);
      slot = prepare_packed(packed, size, chunk);
    }
    prepared = slot;
  }
  check_shape(prepared->shape, g.weight);
  run(g, *prepared, *plan, kernels, operands, parallel);
}

void conv2d(const Conv2dGeometry& g, const float* weight, const uint8_t* mask, const Conv2dOperands& operands,
            Parallel& parallel) {
  g.validate();
  const RowRunKernels& kernels = selected_kernels();
  const auto plan = plan_columns(g, mask, kernels);
  const auto prepared = prepare_plain(weight, g.weight, choose_chunk(g, *plan, kernels));
  run(g, *prepared, *plan, kernels, operands, parallel);
}

}  // namespace semisparse
