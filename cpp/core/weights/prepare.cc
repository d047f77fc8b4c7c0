// SPDX-License-Identifier: Apache-2.0
#include "core/weights/prepare.h"

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "core/weights/decode.h"
#include "core/weights/run_lengths.h"

namespace semisparse {
namespace {

// One group's filters spread out for sorting: which of a block's 4 filters use a row, and with which weights.
struct GroupTable {
  size_t rows = 0;  // channels * rows of a kernel
  size_t planes = 1;
  std::vector<std::vector<uint8_t>> users;  // [block][row], bit f: filter f of the block
  std::vector<std::vector<float>> weights;  // [block][(row * 4 + f) * planes + plane]

  void reset(size_t blocks, size_t row_count, size_t plane_count) {
    rows = row_count;
    planes = plane_count;
    users.assign(blocks, {});
    weights.assign(blocks, {});
  }
  void add(size_t position, size_t row, const float* w) {
    const size_t block = position / kBlockFilters, f = position % kBlockFilters;
    if (users[block].empty()) {
      users[block].assign(rows, 0);
      weights[block].assign(rows * kBlockFilters * planes, 0.0f);
    }
    users[block][row] = static_cast<uint8_t>(users[block][row] | 1u << f);
    std::copy_n(w, planes, &weights[block][(row * kBlockFilters + f) * planes]);
  }
};

// Chunks of nearly equal size over the group's channels; their blocks follow each other from `first_block`
// on.
std::vector<PreparedWeight::Chunk> cut_channels(const PreparedWeight::Group& group, int chunk_channels,
                                                size_t first_block) {
  const int32_t channels = static_cast<int32_t>(group.channels.size());
  const int32_t count = (channels + chunk_channels - 1) / chunk_channels;
  std::vector<PreparedWeight::Chunk> chunks(static_cast<size_t>(count));
  int32_t first = 0;
  for (int32_t i = 0; i < count; ++i) {
    PreparedWeight::Chunk& chunk = chunks[static_cast<size_t>(i)];
    chunk.first_channel = first;
    chunk.channels = (channels - first) / (count - i);
    chunk.first_block = first_block + static_cast<size_t>(i * group.blocks);
    first += chunk.channels;
  }
  return chunks;
}

size_t count_weights(const RunBlock& block) {
  size_t weights = 0;
  for (int s = 1; s < 16; ++s)
    weights += size_t{block.counts[s]} * static_cast<size_t>(__builtin_popcount(s));
  return weights;
}

// Appends one group, table -> chunks of sorted runs. `weights`: of each plane.
void append_group(const GroupTable& table, size_t kernel_rows, const ChunkSettings& chunks,
                  PreparedWeight::Group group, PreparedWeight* out,
                  std::vector<std::vector<float>>* weights) {
  const size_t blocks = table.users.size();
  const size_t all_channels = table.rows / kernel_rows;
  for (size_t c = 0; c < all_channels; ++c) {
    bool used = false;
    for (size_t b = 0; b < blocks && !used; ++b)
      if (!table.users[b].empty())
        for (size_t t = 0; t < kernel_rows && !used; ++t) used = table.users[b][c * kernel_rows + t] != 0;
    if (used) group.channels.push_back(static_cast<int32_t>(c));
  }
  group.chunks = cut_channels(group, chunks.channels, out->blocks.size());
  for (const PreparedWeight::Chunk& chunk : group.chunks) {
    std::vector<BlockRuns> chunk_runs(blocks);
    for (size_t b = 0; b < blocks; ++b) {
      if (table.users[b].empty()) continue;
      for (int32_t c = 0; c < chunk.channels; ++c) {
        const size_t row =
            static_cast<size_t>(group.channels[static_cast<size_t>(chunk.first_channel + c)]) * kernel_rows;
        for (size_t t = 0; t < kernel_rows; ++t)
          if (const uint8_t subset = table.users[b][row + t])
            chunk_runs[b][subset].push_back({static_cast<uint16_t>(static_cast<size_t>(c) * kernel_rows + t),
                                             static_cast<uint32_t>(row + t)});
      }
    }
    if (chunks.equal_runs) equalize_runs(&chunk_runs);
    for (size_t b = 0; b < blocks; ++b) {
      RunBlock runs;
      for (int i = 0; i < 15; ++i) {
        const uint8_t subset = run_order()[i];
        const auto& rows = chunk_runs[b][subset];
        runs.counts[subset] = static_cast<uint16_t>(rows.size());
        if (subset != 15 && !rows.empty()) runs.counts[0] = 1;
        for (const RunRow& row : rows) {
          out->rows.push_back(row.panel_row);
          for (size_t f = 0; f < kBlockFilters; ++f) {
            if (!(subset >> f & 1)) continue;
            const float* const w = &table.weights[b][(row.table_row * kBlockFilters + f) * table.planes];
            for (size_t p = 0; p < table.planes; ++p) (*weights)[p].push_back(w[p]);
          }
        }
      }
      out->blocks.push_back(runs);
    }
  }
  out->groups.push_back(std::move(group));
}

// Sets the blocks' pointers. The kernels may read 4 weights where fewer are used.
void finish(PreparedWeight* out) {
  out->weights.insert(out->weights.end(), kBlockFilters, 0.0f);
  out->rows.shrink_to_fit();
  out->weights.shrink_to_fit();
  size_t row = 0, weight = 0;
  for (RunBlock& block : out->blocks) {
    block.rows = out->rows.data() + row;
    block.weights = out->weights.data() + weight;
    row += count_rows(block);
    weight += count_weights(block);
  }
}

// Finds the blocks of PreparedWeight::full.
void mark_full(size_t kernel_rows, PreparedWeight* out) {
  const int count = out->full_blocks;
  out->full.assign(out->blocks.size(), 0);
  if (count == 0) return;
  const PreparedWeight::Group& group = out->groups[0];
  for (const PreparedWeight::Chunk& chunk : group.chunks) {
    const size_t rows = static_cast<size_t>(chunk.channels) * kernel_rows;
    for (int b = 0; b + count <= group.blocks; b += count) {
      const size_t at = chunk.first_block + static_cast<size_t>(b);
      const auto block = out->blocks.begin() + static_cast<ptrdiff_t>(at);
      out->full[at] =
          std::all_of(block, block + count, [&](const RunBlock& runs) { return runs.counts[15] == rows; });
    }
  }
}

// The same for weights in planes of one group: brings them into the order in which they are used.
void finish_planes(const std::vector<std::vector<float>>& planes, const KernelPlanes& order,
                   PreparedWeight* out) {
  const PreparedWeight::Group& group = out->groups[0];
  std::vector<size_t> from(out->blocks.size());  // where a block's weights lie in each of `planes`
  size_t row = 0, weight = 0;
  for (size_t i = 0; i < out->blocks.size(); ++i) {
    from[i] = weight;
    out->blocks[i].rows = out->rows.data() + row;
    row += count_rows(out->blocks[i]);
    weight += count_weights(out->blocks[i]);
  }
  out->planes = static_cast<int>(planes.size());
  out->together = order.together;
  out->full_blocks = order.full_blocks;
  mark_full(static_cast<size_t>(order.rows), out);
  out->weights.reserve(planes.size() * weight + kBlockFilters);
  std::vector<size_t> to(out->blocks.size());
  const auto append = [&](const std::vector<float>& plane, size_t at, size_t count) {
    const auto start = plane.begin() + static_cast<ptrdiff_t>(at);
    out->weights.insert(out->weights.end(), start, start + static_cast<ptrdiff_t>(count));
  };
  // Each half of the full blocks from i on, row by row.
  const auto append_full = [&](const std::vector<float>& plane, size_t i) {
    const size_t half = static_cast<size_t>(order.full_blocks / 2);
    for (const size_t begin : {i, i + half})
      for (size_t r = 0; r < count_rows(out->blocks[i]); ++r)
        for (size_t k = begin; k < begin + half; ++k)
          append(plane, from[k] + r * kBlockFilters, kBlockFilters);
  };
  for (int first = 0; first < group.blocks; first += order.together) {
    const size_t begin = out->weights.size();
    for (const auto& plane : planes) {
      for (const PreparedWeight::Chunk& chunk : group.chunks) {
        const int last = std::min(first + order.together, group.blocks);
        for (int b = first; b < last;) {
          const size_t i = chunk.first_block + static_cast<size_t>(b);
          if (&plane == &planes[0]) to[i] = out->weights.size();
          if (out->full[i]) {
            append_full(plane, i);
            b += order.full_blocks;
          } else {
            append(plane, from[i], count_weights(out->blocks[i]));
            ++b;
          }
        }
      }
    }
    out->plane_weights.push_back((out->weights.size() - begin) / planes.size());
  }
  out->weights.insert(out->weights.end(), kBlockFilters, 0.0f);
  for (size_t i = 0; i < out->blocks.size(); ++i) out->blocks[i].weights = out->weights.data() + to[i];
}

PreparedWeight::Group start_group(const WeightShape& shape, int64_t g) {
  PreparedWeight::Group group;
  group.filters = static_cast<int32_t>(shape.out_channels / shape.groups);
  group.first_position = static_cast<int32_t>(g) * group.filters;
  group.blocks = (group.filters + kBlockFilters - 1) / kBlockFilters;
  return group;
}

void check_chunk(const WeightShape& shape, int chunk_channels) {
  check(chunk_channels >= 1 && chunk_channels * shape.taps() <= 65535, "chunk of ", chunk_channels,
        " channels of ", shape.taps(), " taps: a chunk has 1 to 65535 rows.");
}

}  // namespace

std::shared_ptr<const PreparedWeight> prepare_packed(const uint8_t* bytes, size_t size,
                                                     const ChunkSettings& chunks,
                                                     const KernelPlanes& planes) {
  const PayloadView view = checked_payload(bytes, size);
  auto out = std::make_shared<PreparedWeight>();
  out->shape = header_shape(view.header);
  const WeightShape& shape = out->shape;
  check_chunk(shape, chunks.channels);
  for (const uint32_t filter : stored_order(view)) out->filters.push_back(static_cast<int32_t>(filter));

  // Positions come in order, so one group's table at a time is enough.
  struct Fill final : KernelVisitor {
    const KernelPlanes& planes;
    PreparedWeight* out;
    const ChunkSettings& chunks;
    size_t rows;  // of a channel
    std::vector<std::vector<float>> weights;
    std::vector<float> taps, values;
    int64_t group = -1;
    GroupTable table;
    Fill(const KernelPlanes& p, PreparedWeight* prepared, const ChunkSettings& settings)
        : planes(p),
          out(prepared),
          chunks(settings),
          rows(p.transform ? static_cast<size_t>(p.rows) : static_cast<size_t>(prepared->shape.taps())),
          weights(static_cast<size_t>(p.count)),
          taps(static_cast<size_t>(prepared->shape.taps())),
          values(static_cast<size_t>(p.count * p.rows)) {}
    void advance(int64_t to) {
      while (group < to) {
        if (group >= 0) append_group(table, rows, chunks, start_group(out->shape, group), out, &weights);
        if (++group < out->shape.groups) {
          const auto next = start_group(out->shape, group);
          table.reset(static_cast<size_t>(next.blocks),
                      static_cast<size_t>(out->shape.in_channels_per_group) * rows,
                      static_cast<size_t>(planes.count));
        }
      }
    }
    void kernel(int64_t, int64_t position, int64_t channel, const uint16_t* tap, int count,
                const float* w) override {
      const int64_t per_group = out->shape.out_channels / out->shape.groups;
      advance(position / per_group);
      const size_t at = static_cast<size_t>(position % per_group), row = static_cast<size_t>(channel) * rows;
      bool any = false;
      for (int i = 0; i < count; ++i) any = any || w[i] != 0.0f;  // -0.0 is stored, but adds nothing
      if (!planes.transform) {
        for (int i = 0; i < count; ++i)
          if (w[i] != 0.0f) table.add(at, row + tap[i], &w[i]);
      } else if (any) {
        std::fill(taps.begin(), taps.end(), 0.0f);
        for (int i = 0; i < count; ++i) taps[tap[i]] = w[i];
        planes.transform(taps.data(), values.data());
        const size_t count_planes = static_cast<size_t>(planes.count);
        for (size_t r = 0; r < rows; ++r) {
          const float* const w_planes = &values[r * count_planes];
          if (std::any_of(w_planes, w_planes + count_planes, [](float x) { return x != 0.0f; }))
            table.add(at, row + r, w_planes);
        }
      }
    }
  } fill(planes, out.get(), chunks);
  fill.advance(0);
  visit_kernels(view, fill);
  fill.advance(shape.groups);
  if (!planes.transform) {
    out->weights.assign(fill.weights[0].begin(), fill.weights[0].end());
    finish(out.get());
  } else {
    check(shape.groups == 1, "weights in planes have one group.");
    finish_planes(fill.weights, planes, out.get());
  }
  return out;
}

PackedInfo inspect_weights(const uint8_t* bytes, size_t size) {
  PackedInfo info = inspect_packed(bytes, size);
  if (info.dense) return info;
  const PayloadView view = checked_payload(bytes, size);
  struct Count final : KernelVisitor {
    int64_t rows = 0, taps = 0, channels = 0, per_group = 0, group_blocks = 0;
    std::vector<uint8_t> used;  // [block][channel][tap]
    void kernel(int64_t, int64_t position, int64_t channel, const uint16_t* tap, int count,
                const float* w) override {
      const int64_t block = position / per_group * group_blocks + position % per_group / kBlockFilters;
      uint8_t* const seen = &used[static_cast<size_t>((block * channels + channel) * taps)];
      for (int i = 0; i < count; ++i)
        if (w[i] != 0.0f && seen[tap[i]] == 0) seen[tap[i]] = 1, ++rows;
    }
  } counts;
  const WeightShape& shape = info.shape;
  counts.taps = shape.taps();
  counts.channels = shape.in_channels_per_group;
  counts.per_group = shape.out_channels / shape.groups;
  counts.group_blocks = (counts.per_group + kBlockFilters - 1) / kBlockFilters;
  counts.used.resize(static_cast<size_t>(shape.groups * counts.group_blocks * counts.channels * counts.taps));
  visit_kernels(view, counts);
  info.block_rows = counts.rows;
  return info;
}

int64_t fullest_filter(const uint8_t* bytes, size_t size) {
  const PayloadView view = checked_payload(bytes, size);
  struct Count final : KernelVisitor {
    std::vector<int64_t> products;
    void kernel(int64_t filter, int64_t, int64_t, const uint16_t*, int count, const float* w) override {
      for (int i = 0; i < count; ++i) products[static_cast<size_t>(filter)] += w[i] != 0.0f;
    }
  } counts;
  counts.products.assign(static_cast<size_t>(header_shape(view.header).out_channels), 0);
  visit_kernels(view, counts);
  return *std::max_element(counts.products.begin(), counts.products.end());
}

std::shared_ptr<const PreparedWeight> prepare_plain(const float* weight, const WeightShape& shape,
                                                    int chunk_channels) {
  shape.validate();
  check_chunk(shape, chunk_channels);
  auto out = std::make_shared<PreparedWeight>();
  out->shape = shape;
  for (int64_t f = 0; f < shape.out_channels; ++f) out->filters.push_back(static_cast<int32_t>(f));
  // Every row is used by every filter of its block: no sorting, just the interleaving of 4 filters.
  const size_t taps = static_cast<size_t>(shape.taps());
  const size_t filter_size = static_cast<size_t>(shape.in_channels_per_group) * taps;
  out->weights.resize(static_cast<size_t>(shape.elements()));
  size_t at = 0;
  for (int64_t g = 0; g < shape.groups; ++g) {
    PreparedWeight::Group group = start_group(shape, g);
    for (int64_t c = 0; c < shape.in_channels_per_group; ++c)
      group.channels.push_back(static_cast<int32_t>(c));
    group.chunks = cut_channels(group, chunk_channels, out->blocks.size());
    for (const PreparedWeight::Chunk& chunk : group.chunks) {
      const size_t begin = static_cast<size_t>(chunk.first_channel) * taps;
      const size_t rows = static_cast<size_t>(chunk.channels) * taps;
      for (int32_t b = 0; b < group.blocks; ++b) {
        const int width = std::min(kBlockFilters, group.filters - b * kBlockFilters);
        RunBlock runs;
        runs.counts[(1 << width) - 1] = static_cast<uint16_t>(rows);
        runs.counts[0] = width != kBlockFilters;
        out->blocks.push_back(runs);
        const float* from =
            weight + static_cast<size_t>(group.first_position + b * kBlockFilters) * filter_size + begin;
        float* to = out->weights.data() + at;
        for (size_t r = 0; r < rows; ++r)
          for (int f = 0; f < width; ++f) *to++ = from[static_cast<size_t>(f) * filter_size + r];
        at += rows * static_cast<size_t>(width);
        for (size_t r = 0; r < rows; ++r) out->rows.push_back(static_cast<uint16_t>(r));
      }
    }
    out->groups.push_back(std::move(group));
  }
  finish(out.get());
  return out;
}

}  // namespace semisparse
