// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/padded_input.h"

#include <algorithm>

namespace semisparse {
namespace {

// Any strides, channels_last above all: so many channels of a pixel side by side, so that each cache line of
// the input is fetched once.
constexpr int64_t kChannelBlock = 8;

template <class E>
void copy_strided(const Conv2dGeometry& g, const E* in, const int64_t (&s)[4], const RowRange& rows,
                  int64_t channels, int64_t plane, E* out) {
  const int64_t w = padded_w(g);
  out -= rows.first * w;
  for (int64_t row = rows.first; row < rows.last; ++row) {
    for (int64_t c = 0; c < channels; ++c) std::fill_n(out + c * plane + row * w, w, E{});
    const int64_t y = row - g.pad_h;
    if (y < 0 || y >= g.in_h) continue;
    const E* from = in + y * s[2];
    E* to = out + row * w + g.pad_w;
    for (int64_t x = 0; x < g.in_w; ++x)
      for (int64_t c = 0; c < channels; ++c) to[c * plane + x] = from[c * s[1] + x * s[3]];
  }
}

// Rows of channels [first, first + count) of image n, any strides, to `out`, `plane` elements for each
// channel.
template <class E>
void copy_padded(const Conv2dGeometry& g, const BasicRowRunKernels<E>& kernels,
                 const BasicConstTensor4<E>& input, int64_t n, const RowRange& rows, int64_t first,
                 int64_t count, int64_t plane, E* out) {
  const int64_t (&s)[4] = input.stride;
  if (s[3] == 1 || g.in_w == 1) {
    const bool far = leaves_l2<E>(g.in_channels() * g.in_h * g.in_w);
    for (int64_t c = 0; c < count; ++c)
      copy_rows(g, kernels, input, n, first + c, rows, out + c * plane,
                far && first + c + 1 < g.in_channels());
    return;
  }
  const E* image = input.data + n * s[0] + first * s[1];
  for (int64_t c = 0; c < count; c += kChannelBlock)
    copy_strided(g, image + c * s[1], s, rows, std::min(kChannelBlock, count - c), plane, out + c * plane);
}

}  // namespace

template <class E>
bool reads_in_place(const Conv2dGeometry& g, const BasicConstTensor4<E>& input) {
  const int64_t (&s)[4] = input.stride;
  return g.pad_h == 0 && g.pad_w == 0 && (s[3] == 1 || g.in_w == 1) && (s[2] == g.in_w || g.in_h == 1);
}

template <class E>
const E* plane_in_place(const Conv2dGeometry& g, const BasicConstTensor4<E>& input, int64_t n,
                        int64_t channel, int64_t read_ahead) {
  if (!reads_in_place(g, input)) return nullptr;
  const int64_t (&s)[4] = input.stride;
  const int64_t start = n * s[0] + channel * s[1], plane = g.in_h * g.in_w;
  const int64_t end = (g.batch - 1) * s[0] + (g.in_channels() - 1) * s[1] + plane;
  return start + plane + read_ahead <= end ? input.data + start : nullptr;
}

bool stage_rows(const Conv2dGeometry& g, const ColumnPlan& plan) {
  // Measured, over one padded copy: rows copied 1.9 to 2.6 times (56x56, 64 channels) cost 3 to 4% of the
  // layer more on one thread and 2% on two, 1.4 to 1.8 times (28x28, 128 channels; 14x14, 256) 1% and 0 to
  // 2%. 1.1 times cost nothing on one thread and save 1% on two, which meet once then, not twice.
  int64_t rows = 0;
  for (const Panel& panel : plan.panels) {
    const RowRange r = panel_rows(g, panel);
    rows += r.last - r.first;
  }
  return 4 * rows <= 5 * padded_h(g);
}

template <class E>
void copy_rows(const Conv2dGeometry& g, const BasicRowRunKernels<E>& kernels,
               const BasicConstTensor4<E>& input, int64_t n, int64_t channel, const RowRange& rows, E* out,
               bool fetch_next) {
  const int64_t (&s)[4] = input.stride;
  const E* const plane = input.data + n * s[0] + channel * s[1];
  kernels.pad({plane, g.in_h, g.in_w, s[2], s[3], g.pad_h, g.pad_w, rows.first, rows.last,
               fetch_next ? plane + s[1] : nullptr, out});
}

int64_t images_per_slab(const Conv2dGeometry& g) {
  const int64_t image_bytes = 4 * padded_plane(g) * g.in_channels();
  return std::clamp<int64_t>((int64_t{8} << 20) / image_bytes, 1, std::max<int64_t>(g.batch, 1));
}

template <class E>
void copy_images(const Conv2dGeometry& g, const BasicRowRunKernels<E>& kernels,
                 const BasicConstTensor4<E>& input, int64_t first, int64_t count, const RowRange& rows,
                 int64_t plane, E* out, Parallel& parallel) {
  const int64_t channels = g.in_channels();
  share_rows(count, rows.last - rows.first, plane, channels, parallel,
             [&](int64_t n, const RowRange& part, int64_t c, int64_t together) {
               copy_padded(g, kernels, input, first + n, {rows.first + part.first, rows.first + part.last}, c,
                           together, plane, out + (n * channels + c) * plane + part.first * padded_w(g));
             });
}

#define SEMISPARSE_INSTANTIATE(E)                                                                           \
  template bool reads_in_place(const Conv2dGeometry&, const BasicConstTensor4<E>&);                         \
  template const E* plane_in_place(const Conv2dGeometry&, const BasicConstTensor4<E>&, int64_t, int64_t,    \
                                   int64_t);                                                                \
  template void copy_rows(const Conv2dGeometry&, const BasicRowRunKernels<E>&, const BasicConstTensor4<E>&, \
                          int64_t, int64_t, const RowRange&, E*, bool);                                     \
  template void copy_images(const Conv2dGeometry&, const BasicRowRunKernels<E>&,                            \
                            const BasicConstTensor4<E>&, int64_t, int64_t, const RowRange&, int64_t, E*,    \
                            Parallel&);
SEMISPARSE_INSTANTIATE(float)
SEMISPARSE_INSTANTIATE(Half)
#undef SEMISPARSE_INSTANTIATE

}  // namespace semisparse
