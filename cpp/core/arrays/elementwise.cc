// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "core/arrays/arrays.h"
#include "core/arrays/kernels.h"
#include "core/base/error.h"

namespace semisparse {
namespace {

// Elements in a task: enough to be worth handing out.
constexpr int64_t kTaskElements = 16384;

// run(offsets, begin, end) for pieces [begin, end) of every row; offsets are those of the row.
template <size_t Arrays, class Run>
void for_pieces(const Layout& layout, Parallel& parallel, int64_t work, Run run) {
  const int64_t length = layout.row_length(), rows = layout.rows();
  const int64_t together = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, length * work));
  const int64_t cuts = std::max<int64_t>(1, length * work / kTaskElements);
  const int64_t groups = (rows + together - 1) / together;
  parallel.run(groups * cuts, [&](int64_t task) {
    const int64_t cut = task % cuts, group = task / cuts;
    for (int64_t row = group * together; row < std::min((group + 1) * together, rows); ++row) {
      int64_t offsets[Arrays];
      layout.row(row, offsets);
      run(offsets, length * cut / cuts, length * (cut + 1) / cuts);
    }
  });
}

float apply(Arithmetic op, float a, float b) {
  switch (op) {
    case Arithmetic::add:
      return a + b;
    case Arithmetic::subtract:
      return a - b;
    case Arithmetic::multiply:
      return a * b;
    default:
      return a / b;
  }
}

constexpr int64_t kPiece = 256;  // of a row whose elements do not lie side by side, gathered on the stack

// Neighbouring floats that are those of `from`, `step` apart.
const float* gathered(const float* from, int64_t step, int64_t n, float* buffer) {
  if (step == 1) return from;
  for (int64_t i = 0; i < n; ++i) buffer[i] = from[i * step];
  return buffer;
}

}  // namespace

Arithmetic parse_arithmetic(std::string_view name) {
  if (name == "add") return Arithmetic::add;
  if (name == "subtract") return Arithmetic::subtract;
  if (name == "multiply") return Arithmetic::multiply;
  if (name == "divide") return Arithmetic::divide;
  fail("unknown arithmetic '", std::string(name), "': expected add, subtract, multiply or divide.");
}

void copy(const Layout& layout, const float* in, float* out, Parallel& parallel) {
  const int64_t in_step = layout.step(0), out_step = layout.step(1);
  for_pieces<2>(layout, parallel, 1, [&](const int64_t* at, int64_t begin, int64_t end) {
    const float* const from = in + at[0] + begin * in_step;
    float* const to = out + at[1] + begin * out_step;
    if (in_step == 1 && out_step == 1)
      std::memcpy(to, from, sizeof(float) * static_cast<size_t>(end - begin));
    else
      for (int64_t i = 0; i < end - begin; ++i) to[i * out_step] = from[i * in_step];
  });
}

void activate(Activation activation, const Layout& layout, const float* in, float* out, Parallel& parallel) {
  const ArrayKernels& kernels = selected_array_kernels();
  const int64_t step = layout.step(0);
  for_pieces<2>(layout, parallel, 4, [&](const int64_t* at, int64_t begin, int64_t end) {
    float buffer[kPiece];
    const int64_t piece = step == 1 ? end - begin : kPiece;
    for (int64_t x = begin; x < end; x += piece) {
      const int64_t n = std::min(piece, end - x);
      kernels.activate(activation, gathered(in + at[0] + x * step, step, n, buffer), n, out + at[1] + x);
    }
  });
}

void combine(Arithmetic op, const Layout& layout, const float* a, const float* b, float* out,
             Parallel& parallel) {
  const ArrayKernels& kernels = selected_array_kernels();
  const int64_t a_step = layout.step(0), b_step = layout.step(1);
  const bool plain = (a_step == 0 || a_step == 1) && (b_step == 0 || b_step == 1);
  for_pieces<3>(layout, parallel, 1, [&](const int64_t* at, int64_t begin, int64_t end) {
    const float* const p = a + at[0] + begin * a_step;
    const float* const q = b + at[1] + begin * b_step;
    float* const to = out + at[2] + begin;
    if (plain)
      kernels.combine(op, p, a_step, q, b_step, end - begin, to);
    else
      for (int64_t i = 0; i < end - begin; ++i) to[i] = apply(op, p[i * a_step], q[i * b_step]);
  });
}

void softmax(const Layout& layout, int64_t count, int64_t in_step, int64_t out_step, const float* in,
             float* out, Parallel& parallel) {
  const ArrayKernels& kernels = selected_array_kernels();
  const int64_t in_next = layout.step(0), out_next = layout.step(1);
  const bool columns = layout.row_length() == 1 || (in_next == 1 && out_next == 1);
  for_pieces<2>(layout, parallel, 8 * count, [&](const int64_t* at, int64_t begin, int64_t end) {
    if (columns && !(in_step == 1 && out_step == 1))
      return kernels.softmax_columns(in + at[0] + begin, in_step, count, end - begin, out + at[1] + begin,
                                     out_step);
    for (int64_t x = begin; x < end; ++x) {
      const float* const from = in + at[0] + x * in_next;
      float* const to = out + at[1] + x * out_next;
      if (in_step == 1 && out_step == 1)
        kernels.softmax_row(from, count, to);
      else
        kernels.softmax_columns(from, in_step, count, 1, to, out_step);
    }
  });
}

}  // namespace semisparse
