// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/phases.h"

#include <algorithm>

#include "core/base/aligned.h"
#include "core/conv2d/padded_input.h"

namespace semisparse {

Phases::Phases(const Conv2dGeometry& g)
    : rows((padded_h(g) + g.stride_h - 1) / g.stride_h),
      pitch((padded_w(g) + g.stride_w - 1) / g.stride_w),
      floats(rows * pitch),
      count(g.stride_h * g.stride_w) {}

template <class E>
void split_images(const Conv2dGeometry& g, const BasicRowRunKernels<E>& kernels,
                  const BasicConstTensor4<E>& input, int64_t first, int64_t count, const RowRange& rows,
                  int64_t phase_floats, E* out, Parallel& parallel) {
  const Phases phases(g);
  const int64_t channels = g.in_channels(), channel_floats = phases.count * phase_floats;
  const auto split = [&](int64_t n, const RowRange& part, int64_t begin, int64_t together) {
    static thread_local BasicAlignedBuffer<E> line;
    const int64_t (&s)[4] = input.stride;
    // Rows of padding that lie before the first row.
    const int64_t pad_h = g.pad_h - (rows.first + part.first) * g.stride_h;
    SplitArgs<E> a{nullptr,      g.in_h,       g.in_w,     s[2],       s[3],
                   pad_h,        g.pad_w,      g.stride_h, g.stride_w, part.last - part.first,
                   phases.pitch, phase_floats, nullptr,    nullptr};
    a.line = line.reserve(static_cast<size_t>(phases.pitch * g.stride_w + 2 * kernels.lanes));
    for (int64_t c = begin; c < begin + together; ++c) {
      a.in = input.data + (first + n) * s[0] + c * s[1];
      a.out = out + (n * channels + c) * channel_floats + part.first * phases.pitch;
      kernels.split(a);
    }
  };
  share_rows(count, rows.last - rows.first, channel_floats, channels, parallel, split);
}

template void split_images(const Conv2dGeometry&, const RowRunKernels&, const ConstTensor4&, int64_t, int64_t,
                           const RowRange&, int64_t, float*, Parallel&);
template void split_images(const Conv2dGeometry&, const HalfKernels&, const BasicConstTensor4<Half>&, int64_t,
                           int64_t, const RowRange&, int64_t, Half*, Parallel&);

}  // namespace semisparse
