// SPDX-License-Identifier: Apache-2.0
// What computing a panel is about, however its rows are read: sums of all blocks of filters, chunk by chunk,
// from bias to output pixels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/base/aligned.h"
#include "core/conv2d/conv2d.h"
#include "core/conv2d/padded_input.h"
#include "core/row_run/row_run.h"
#include "core/weights/prepare.h"

namespace semisparse {

// Where the output is when it is written, and how: in the L2 cache; further away, fetched before; or it is
// too large for any cache and goes to memory past them, in whole cache lines.
enum class OutputPlace { near, far, memory };

template <class E>
OutputPlace output_place(const Conv2dGeometry& g, const ColumnPlan& plan, const E* output) {
#ifdef __x86_64__
  constexpr int64_t kShare = int64_t{8} << 20;  // of the last cache: more than other cores leave to one
  constexpr int64_t kLine = 64, kBytes = sizeof(E);
  const int64_t pixels = g.out_h() * g.out_w(), image = g.out_channels() * pixels;
  const bool lines = plan.lanes * kBytes == kLine && plan.kept == pixels && g.out_w() * kBytes % kLine == 0 &&
                     reinterpret_cast<uintptr_t>(output) % kLine == 0;
  if (lines && g.batch * image * kBytes > kShare) return OutputPlace::memory;
  return leaves_l2<E>(image) ? OutputPlace::far : OutputPlace::near;
#else  // fetching would cost instructions, unmeasured
  static_cast<void>(g), static_cast<void>(plan), static_cast<void>(output);
  return OutputPlace::near;
#endif
}

// After a task that wrote past the caches: what it wrote comes before what its thread says next.
inline void finish_streaming(OutputPlace to) {
#ifdef __x86_64__
  if (to == OutputPlace::memory) __builtin_ia32_sfence();
#else
  static_cast<void>(to);
#endif
}

// One image, one group.
template <class E>
struct PanelTask {
  const Conv2dGeometry* geometry;
  const PreparedWeight* weight;
  const PreparedWeight::Group* group;
  const ColumnPlan* plan;
  const Panel* panel;
  const BasicRowRunKernels<E>* kernels;
  const BasicConv2dOperands<E>* operands;
  int64_t n;
  int64_t first_channel;  // of the group
  int64_t pixels;         // of an output plane
  OutputPlace to;
  const float* activated_fill;  // see activate_fill

  // How many filters a block has, at most kBlockFilters, and their output channels.
  int block_filters(int block) const {
    return std::min(kBlockFilters, static_cast<int>(group->filters) - block * kBlockFilters);
  }
  const int32_t* block_channels(int block) const {
    return weight->filters.data() + group->first_position + block * kBlockFilters;
  }
};

// Channels of which a block uses `rows` rows on average, if so many of all weights are not zero. A chunk with
// too few would spend its time on reading and writing sums: sparse weights do better with chunks that leave
// the L1 cache (8x fewer weights at 64 channels, 56x56: 7%; patterns alone lose by it).
inline int64_t used_rows_channels(const Conv2dGeometry& g, int rows, double density) {
  return static_cast<int64_t>(rows / std::max(density * static_cast<double>(g.weight.taps()), 1e-3));
}

// Bias of a block's four filters, 0 past the last.
template <class E>
void load_bias(const PanelTask<E>& t, int block, float* bias) {
  const float* const given = t.operands->bias;
  const int32_t* const channels = t.block_channels(block);
  const int filters = given != nullptr ? t.block_filters(block) : 0;
  for (int f = 0; f < kBlockFilters; ++f) bias[f] = f < filters ? given[channels[f]] : 0.0f;
}

// The fill of every channel after the activation; null if the plan skips no pixel. It is the calling thread's
// until its next convolution.
template <class E>
const float* activate_fill(const Conv2dGeometry& g, const ColumnPlan& plan,
                           const BasicRowRunKernels<E>& kernels, const BasicConv2dOperands<E>& operands) {
  static thread_local AlignedBuffer buffer;
  if (plan.kept == g.out_h() * g.out_w()) return nullptr;
  const int64_t lanes = kernels.lanes, channels = g.out_channels(),
                count = (channels + lanes - 1) / lanes * lanes;
  float* const values = buffer.reserve(static_cast<size_t>(count));
  std::fill_n(values, count, 0.0f);
  if (operands.fill != nullptr) std::copy_n(operands.fill, channels, values);
  kernels.activate(operands.activation, values, count);
  return values;
}

// Pixels of a panel, before they are written: it writes few pixels of many planes, which is no stream for the
// hardware prefetcher.
template <class E>
void fetch_outputs(const PanelTask<E>& t, int block) {
  const StoreSegment* const first = &t.plan->segments[static_cast<size_t>(t.panel->first_segment)];
  const StoreSegment* const last = first + t.panel->segments - 1;
  const int32_t* const channels = t.block_channels(block);
  const E* const image = t.operands->output + t.n * t.geometry->out_channels() * t.pixels;
  for (int f = 0; f < t.block_filters(block); ++f) {
    const E* const plane = image + channels[f] * t.pixels;
    for (const E* p = plane + first->out; p < plane + last->out + last->count; p += 64 / sizeof(E))
      __builtin_prefetch(p);
  }
}

template <class E>
void store_block(const PanelTask<E>& t, int block, const float* sums, size_t width) {
  StoreArgs<E> store;
  store.acc = sums;
  store.acc_stride = width;
  store.plan = t.plan;
  store.panel = t.panel;
  store.activation = t.operands->activation;
  store.filters = t.block_filters(block);
  store.stream = t.to == OutputPlace::memory;
  const int32_t* const channels = t.block_channels(block);
  const float* const fill = t.operands->fill;
  const E* const residual = t.operands->residual;
  const int64_t image = t.n * t.geometry->out_channels() * t.pixels;
  for (int f = 0; f < store.filters; ++f) {
    const int64_t offset = image + channels[f] * t.pixels;
    store.fill[f] = fill != nullptr ? fill[channels[f]] : 0.0f;
    if (t.activated_fill != nullptr) store.activated_fill[f] = t.activated_fill[channels[f]];
    store.residual[f] = residual != nullptr ? residual + offset : nullptr;
    store.output[f] = t.operands->output + offset;
  }
  t.kernels->store(store);
}

// Blocks [begin, end) of so many panels, chunk by chunk: weights are read once for all of them. read(panel,
// chunk) makes a chunk's rows ready (chunk is null if the group has no weight at all) and comes before the
// panel's other calls; multiply(rows, runs, init, sums) adds a block's products to `block_sums` floats,
// starting from `init` (4 values) or, if that is null, from what they hold; finish(block, sums) follows a
// block's last products at once, so that its stores drain behind the next block's arithmetic.
template <class E, class Read, class Multiply, class Finish>
void run_blocks(const PanelTask<E>& t, int panels, int begin, int end, size_t block_sums, Read read,
                Multiply multiply, Finish finish) {
  static thread_local AlignedBuffer sum_buffer;
  static thread_local std::vector<char> started;
  static const RunBlock no_rows;
  const size_t chunks = t.group->chunks.size(), blocks = static_cast<size_t>(end - begin);
  float* const sums = sum_buffer.reserve(static_cast<size_t>(panels) * blocks * block_sums +
                                         static_cast<size_t>(t.kernels->lanes));
  started.assign(blocks, 0);
  char* const begun = started.data();  // finding a variable of the thread costs a call on ARM
  for (size_t i = 0; i < std::max<size_t>(chunks, 1); ++i) {
    const PreparedWeight::Chunk* const chunk = i < chunks ? &t.group->chunks[i] : nullptr;
    const bool last = i + 1 >= chunks;
    for (int p = 0; p < panels; ++p) {
      const auto rows = read(p, chunk);
      float* const panel_sums = sums + static_cast<size_t>(p) * blocks * block_sums;
      for (int b = begin; b < end; ++b) {
        const size_t at = static_cast<size_t>(b - begin);
        float* const acc = panel_sums + at * block_sums;
        const RunBlock& runs =
            chunk != nullptr ? t.weight->blocks[chunk->first_block + static_cast<size_t>(b)] : no_rows;
        const bool any = runs.counts[15] != 0 || runs.counts[0] != 0;
        if (any || (last && !begun[at])) {
          // Until a block's first rows come, its sums are its bias.
          float bias[kBlockFilters];
          if (last && t.to == OutputPlace::far) fetch_outputs(t, b);
          if (!begun[at]) load_bias(t, b, bias);
          multiply(rows, runs, begun[at] ? nullptr : bias, acc);
          if (p + 1 == panels) begun[at] = 1;
        }
        if (last) finish(b, acc);
      }
    }
  }
}

// Calls run(image, group, first panel, panels, first block, last block) so that threads have something to do.
// Columns are the first thing to share out, `together` panels at a time if that leaves a task for everybody.
// Where panels are few, so that one more or less would leave threads waiting, filters are too: every share
// reads the panel for itself. No sum is cut, so the result does not depend on the shares.
template <class Run>
void share_panels(int64_t images, int64_t groups, int64_t panels, int64_t together, int blocks,
                  Parallel& parallel, Run run) {
  const int64_t threads = parallel.threads();
  const int64_t fewest = std::min(panels, (threads + images * groups - 1) / (images * groups));
  const int64_t sets = std::max((panels + together - 1) / together, fewest), whole = images * groups * sets;
  int64_t shares = 1;
  if (whole % threads != 0 && whole < 8 * threads) shares = std::clamp<int64_t>(blocks / 4, 1, threads);
  parallel.run(whole * shares, [&](int64_t task) {
    const int64_t share = task % shares, set = task / shares % sets;
    const int64_t group = task / shares / sets % groups, image = task / shares / sets / groups;
    const int64_t first = panels * set / sets;
    run(image, group, static_cast<size_t>(first), static_cast<int>(panels * (set + 1) / sets - first),
        static_cast<int>(blocks * share / shares), static_cast<int>(blocks * (share + 1) / shares));
  });
}

}  // namespace semisparse
