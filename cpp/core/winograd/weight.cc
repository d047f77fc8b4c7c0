// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include "core/winograd/winograd.h"

namespace semisparse {
namespace {

// The finite points of algebra.h, in its order; infinity is the last.
std::vector<double> points(WinogradSize size) {
  if (size == WinogradSize{2, 3}) return {0, 1, -1};
  const double a = std::sqrt(0.5), b = std::sqrt(2.0);
  if (size == WinogradSize{4, 3}) return {0, a, -a, b, -b};
  return {0.25, -0.25, 0.75, -0.75, 2, -2};
}

// One row of a kernel, a polynomial with its taps as coefficients, to its value at each point divided by that
// point's distances from all the others (the matrix G of the transform G k G^T).
void transform_row(WinogradSize size, const std::vector<double>& at, const double* in, int stride_in,
                   double* out, int stride_out) {
  for (const double p : at) {
    double value = 0, distances = 1;
    for (int i = size.taps - 1; i >= 0; --i) value = value * p + in[i * stride_in];
    for (const double q : at) distances *= p == q ? 1 : p - q;
    *out = value / distances;
    out += stride_out;
  }
  *out = in[(size.taps - 1) * stride_in];
}

}  // namespace

void winograd_transform_weight(WinogradSize size, const float* taps, float* planes) {
  const int n = size.taps, patch = size.patch();
  const std::vector<double> at = points(size), kernel(taps, taps + n * n);
  std::vector<double> half(static_cast<size_t>(patch * n)), full(static_cast<size_t>(size.planes()));
  for (int x = 0; x < n; ++x) transform_row(size, at, kernel.data() + x, n, half.data() + x, n);
  for (int y = 0; y < patch; ++y) transform_row(size, at, half.data() + n * y, 1, full.data() + patch * y, 1);
  for (const double value : full) *planes++ = static_cast<float>(value);
}

}  // namespace semisparse
