// SPDX-License-Identifier: Apache-2.0
// The input as packing wants it: planes with neighbouring pixels side by side and zeros around them. Three
// ways: in place where there is no padding; a padded copy of the whole image; or only the rows that one panel
// reads, copied just before it is packed (*staged*). Staging keeps everything in the L1 cache and needs no
// pass over the image of its own, but reads rows that several panels share again; for wide images that is the
// larger part.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/columns/column_plan.h"
#include "core/conv2d/conv2d.h"
#include "core/cpu/cpu.h"
#include "core/row_run/row_run.h"

namespace semisparse {

// Rows of the padded plane, and their distance, in elements.
inline int64_t padded_h(const Conv2dGeometry& g) {
  return g.in_h + 2 * g.pad_h;
}
inline int64_t padded_w(const Conv2dGeometry& g) {
  return g.in_w + 2 * g.pad_w;
}
inline int64_t padded_plane(const Conv2dGeometry& g) {
  return padded_h(g) * padded_w(g);
}

// Whether an image of so many elements does not fit in the L2 cache: it comes from, and goes to, further
// away.
template <class E>
bool leaves_l2(int64_t elements) {
  return static_cast<int64_t>(sizeof(E)) * elements > static_cast<int64_t>(cpu_info().l2_bytes);
}

// Rows [first, last) of the padded plane that a panel reads.
struct RowRange {
  int64_t first, last;
};
inline RowRange panel_rows(const Conv2dGeometry& g, const Panel& panel) {
  const int64_t reach = g.dilation_h * (g.weight.kernel_h - 1) + 1;
  return {panel.first_y * g.stride_h, panel.last_y * g.stride_h + reach};
}

// Whether planes are read in place, but perhaps for the last few.
template <class E>
bool reads_in_place(const Conv2dGeometry& g, const BasicConstTensor4<E>& input);

// Start of a channel's plane in the input itself, or null if it cannot be read there: see above, or the plane
// lies so near the end of the tensor that packing, which may read `read_ahead` elements more, would leave it.
template <class E>
const E* plane_in_place(const Conv2dGeometry& g, const BasicConstTensor4<E>& input, int64_t n,
                        int64_t channel, int64_t read_ahead);

// Whether staging copies little enough to be better than one copy of the image.
bool stage_rows(const Conv2dGeometry& g, const ColumnPlan& plan);

// Copies rows of one channel of image n, any strides.
template <class E>
void copy_rows(const Conv2dGeometry& g, const BasicRowRunKernels<E>& kernels,
               const BasicConstTensor4<E>& input, int64_t n, int64_t channel, const RowRange& rows, E* out,
               bool fetch_next = false);

// Shares the copying of images, `rows` rows each and `plane` elements a channel, between threads: calls
// copy(image, rows, first channel, channels). Each thread copies rows next to each other, of all channels, as
// it will compute panels next to each other: most of what a panel reads is then in its own cache. A task is
// enough work to be worth handing out.
template <class Copy>
void share_rows(int64_t images, int64_t rows, int64_t plane, int64_t channels, Parallel& parallel,
                const Copy& copy) {
  const int64_t bands =
      images % parallel.threads() == 0 ? 1 : std::clamp<int64_t>(rows / 8, 1, parallel.threads());
  const int64_t together = std::max<int64_t>(1, 65536 * bands / plane),
                parts = (channels + together - 1) / together;
  parallel.run(images * bands * parts, [&](int64_t task) {
    const int64_t image = task / parts / bands, band = task / parts % bands, c = task % parts * together;
    copy(image, RowRange{rows * band / bands, rows * (band + 1) / bands}, c,
         std::min(together, channels - c));
  });
}

// Images whose padded copies are made and used together: 8 MiB of them, at least one.
int64_t images_per_slab(const Conv2dGeometry& g);

// Rows of the padded planes of images [first, first + count), all channels: channel by channel, image by
// image, `plane` elements for each channel.
template <class E>
void copy_images(const Conv2dGeometry& g, const BasicRowRunKernels<E>& kernels,
                 const BasicConstTensor4<E>& input, int64_t first, int64_t count, const RowRange& rows,
                 int64_t plane, E* out, Parallel& parallel);

}  // namespace semisparse
