// SPDX-License-Identifier: Apache-2.0
// What a network needs beside convolutions, linear layers and max pooling: arithmetic, activations, softmax,
// averages, resizing and copies of whole arrays.
//
// Results do not depend on parallel.threads().
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/tensor.h"
#include "core/conv2d/conv2d.h"

namespace semisparse {

enum class Arithmetic : uint8_t { add, subtract, multiply, divide };

// Throws Error naming the known ones.
Arithmetic parse_arithmetic(std::string_view name);

// Dimensions, outermost first, and how several arrays lie in them: element strides of any sign, 0 where an
// array is broadcast.
class Layout {
 public:
  Layout() = default;
  // strides[k]: of array k. Dimensions of size 1 are dropped, and neighbours that every array has in one
  // piece are joined, so that rows are as long as can be.
  Layout(const std::vector<int64_t>& sizes, const std::vector<std::vector<int64_t>>& strides);

  int64_t rows() const { return rows_; }
  int64_t row_length() const { return sizes_.back(); }
  int64_t step(size_t array) const { return strides_[array].back(); }  // between neighbours in a row
  // Whether two arrays lie the same way.
  bool same(size_t array, size_t other) const { return strides_[array] == strides_[other]; }
  // Offset of a row's first element in each array.
  void row(int64_t index, int64_t* offsets) const;

 private:
  std::vector<int64_t> sizes_ = {1};
  std::vector<std::vector<int64_t>> strides_;
  int64_t rows_ = 1;
};

// out = in. `layout`: of in and out.
void copy(const Layout& layout, const float* in, float* out, Parallel& parallel);

// out = activation(in). `layout`: of in and out.
void activate(Activation activation, const Layout& layout, const float* in, float* out, Parallel& parallel);

// out = a op b. `layout`: of a, b and out.
void combine(Arithmetic op, const Layout& layout, const float* a, const float* b, float* out,
             Parallel& parallel);

// exp(x_i) / sum_j exp(x_j) over `count` entries that lie in_step and out_step apart, for every position of
// `layout` (of in and out, without that dimension).
void softmax(const Layout& layout, int64_t count, int64_t in_step, int64_t out_step, const float* in,
             float* out, Parallel& parallel);

// Pixels [begin, end) along one side of an image; inside it, and at least one.
struct Window {
  int64_t begin, end;
};

struct Planes {
  int64_t batch, channels, height, width;
};

// For each pair of windows of rows and of columns the sum of their pixels over `divisor`, or over their
// number where that is 0. `out`: contiguous (N, C, rows, columns).
void avg_pool2d(const Planes& planes, const ConstTensor4& in, const std::vector<Window>& rows,
                const std::vector<Window>& columns, float divisor, float* out, Parallel& parallel);

// out[n,c,y,x] = in[n,c,rows[y],columns[x]]. `out`: contiguous.
void upsample_nearest2d(const Planes& planes, const ConstTensor4& in, const std::vector<int64_t>& rows,
                        const std::vector<int64_t>& columns, float* out, Parallel& parallel);

}  // namespace semisparse
