// SPDX-License-Identifier: Apache-2.0
// Averages over windows, and nearest neighbours.
#include <algorithm>
#include <cstring>

#include "core/arrays/arrays.h"
#include "core/arrays/kernels.h"
#include "core/base/aligned.h"

namespace semisparse {
namespace {

constexpr int64_t kTaskPixels = 65536;  // read or written in a task: enough to be worth handing out

// run(plane, its first pixel) for every plane.
template <class Run>
void for_planes(const Planes& p, const ConstTensor4& in, int64_t pixels, Parallel& parallel, Run run) {
  const int64_t planes = p.batch * p.channels,
                together = std::max<int64_t>(1, kTaskPixels / std::max<int64_t>(1, pixels));
  parallel.run((planes + together - 1) / together, [&](int64_t task) {
    for (int64_t i = task * together; i < std::min((task + 1) * together, planes); ++i)
      run(i, in.data + i / p.channels * in.stride[0] + i % p.channels * in.stride[1]);
  });
}

// line = from or, unless it is the first, line + from.
void add_row(const ArrayKernels& kernels, const float* from, int64_t step, int64_t width, bool first,
             float* line) {
  if (step == 1 && !first) return kernels.combine(Arithmetic::add, line, 1, from, 1, width, line);
  if (step == 1) return void(std::memcpy(line, from, sizeof(float) * static_cast<size_t>(width)));
  for (int64_t x = 0; x < width; ++x) line[x] = first ? from[x * step] : line[x] + from[x * step];
}

}  // namespace

void avg_pool2d(const Planes& p, const ConstTensor4& in, const std::vector<Window>& rows,
                const std::vector<Window>& columns, float divisor, float* out, Parallel& parallel) {
  const ArrayKernels& kernels = selected_array_kernels();
  const int64_t outputs = static_cast<int64_t>(rows.size() * columns.size());
  const auto scale = [divisor](const Window& row, const Window& column) {
    const int64_t pixels = (row.end - row.begin) * (column.end - column.begin);
    return 1.0f / (divisor != 0 ? divisor : static_cast<float>(pixels));
  };
  // Whole lines that lie behind each other are one sum.
  const bool lines = columns.size() == 1 && columns[0].begin == 0 && columns[0].end == p.width &&
                     (in.stride[3] == 1 || p.width == 1) && in.stride[2] == p.width;
  for_planes(p, in, p.height * p.width, parallel, [&](int64_t plane, const float* image) {
    static thread_local AlignedBuffer buffer;
    float* const line = buffer.reserve(static_cast<size_t>(p.width));
    float* to = out + plane * outputs;
    for (const Window& row : rows) {
      if (lines) {
        *to++ = scale(row, columns[0]) *
                kernels.sum(image + row.begin * p.width, (row.end - row.begin) * p.width);
        continue;
      }
      for (int64_t y = row.begin; y < row.end; ++y)
        add_row(kernels, image + y * in.stride[2], in.stride[3], p.width, y == row.begin, line);
      for (const Window& column : columns) {
        float sum = 0;
        for (int64_t x = column.begin; x < column.end; ++x) sum += line[x];
        *to++ = scale(row, column) * sum;
      }
    }
  });
}

void upsample_nearest2d(const Planes& p, const ConstTensor4& in, const std::vector<int64_t>& rows,
                        const std::vector<int64_t>& columns, float* out, Parallel& parallel) {
  const ArrayKernels& kernels = selected_array_kernels();
  const int64_t width = static_cast<int64_t>(columns.size()), step = in.stride[3];
  bool twice = step == 1 && width == 2 * p.width;
  for (int64_t x = 0; x < width; ++x) twice = twice && columns[static_cast<size_t>(x)] == x / 2;
  const int64_t pixels = static_cast<int64_t>(rows.size()) * width;
  for_planes(p, in, pixels, parallel, [&](int64_t plane, const float* image) {
    float* to = out + plane * pixels;
    for (size_t y = 0; y < rows.size(); ++y, to += width) {
      const float* const from = image + rows[y] * in.stride[2];
      if (y > 0 && rows[y] == rows[y - 1])
        std::memcpy(to, to - width, sizeof(float) * static_cast<size_t>(width));
      else if (twice)
        kernels.repeat2(from, p.width, to);
      else
        for (int64_t x = 0; x < width; ++x) to[x] = from[columns[static_cast<size_t>(x)] * step];
    }
  });
}

}  // namespace semisparse
