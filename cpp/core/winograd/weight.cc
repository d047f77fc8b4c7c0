// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "core/winograd/winograd.h"

namespace semisparse {
namespace {

// Rows of G for the points of algebra.h. The transform of a kernel k is G k G^T.
void transform_rows(int tile, const double* in, int stride_in, double* out, int stride_out) {
  const double k0 = in[0], k1 = in[stride_in], k2 = in[2 * stride_in];
  const auto put = [&](int i, double value) { out[i * stride_out] = value; };
  if (tile == 2) {
    put(0, k0);
    put(1, (k0 + k1 + k2) / 2);
    put(2, (k0 - k1 + k2) / 2);
    put(3, k2);
    return;
  }
  const double a = std::sqrt(0.5), b = std::sqrt(2.0);
  put(0, k0);
  put(1, (k0 + a * k1 + 0.5 * k2) * (-2.0 / 3));
  put(2, (k0 - a * k1 + 0.5 * k2) * (-2.0 / 3));
  put(3, (k0 + b * k1 + 2.0 * k2) / 6);
  put(4, (k0 - b * k1 + 2.0 * k2) / 6);
  put(5, k2);
}

}  // namespace

void winograd_transform_weight(int tile, const float* taps, float* planes) {
  const int points = tile + 2;
  double kernel[9], half[6 * 3], full[36];
  for (int i = 0; i < 9; ++i) kernel[i] = static_cast<double>(taps[i]);
  for (int x = 0; x < 3; ++x) transform_rows(tile, kernel + x, 3, half + x, 3);
  for (int y = 0; y < points; ++y) transform_rows(tile, half + 3 * y, 1, full + points * y, 1);
  for (int i = 0; i < points * points; ++i) planes[i] = static_cast<float>(full[i]);
}

}  // namespace semisparse
