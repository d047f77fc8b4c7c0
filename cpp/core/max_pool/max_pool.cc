// SPDX-License-Identifier: Apache-2.0
#include "core/max_pool/max_pool.h"

#include <algorithm>

#include "core/base/aligned.h"
#include "core/base/error.h"
#include "core/max_pool/kernels.h"

namespace semisparse {
namespace {

// Input pixels in a task: enough to be worth handing out.
constexpr int64_t kTaskPixels = 65536;
// Where neighbouring pixels do not lie side by side, channels_last above all: so many channels of a pixel at
// once, so that each cache line of the input is fetched once.
constexpr int64_t kChannelBlock = 16;

// What all planes of a call share.
class Pool {
 public:
  Pool(const MaxPool2dGeometry& g, const MaxPoolKernels& kernels)
      : g_(g),
        kernels_(kernels),
        length_(max_pool_row(g, kernels.lanes)),
        rows_(max_pool_rows(length_)),
        out_w_(g.out_w()) {}

  void rows(const float* in, int64_t row_stride, int64_t first, int64_t last, float* out) const {
    static thread_local AlignedBuffer buffer;
    float* const scratch =
        buffer.reserve(static_cast<size_t>((rows_ + (g_.stride_w <= 2 ? 0 : 1)) * length_));
    kernels_.pool({&g_, in, row_stride, first, last, out_w_, length_, rows_, scratch, out});
  }

 private:
  const MaxPool2dGeometry& g_;
  const MaxPoolKernels& kernels_;
  const int64_t length_, rows_, out_w_;
};

// Tasks are groups of planes or, of large planes, bands of output rows.
void pool_rows(const MaxPool2dGeometry& g, const Pool& pool, const ConstTensor4& input, float* output,
               Parallel& parallel) {
  const int64_t planes = g.batch * g.channels, out_h = g.out_h(), out_plane = out_h * g.out_w();
  const int64_t pixels = g.in_h * g.in_w;
  const int64_t together = std::max<int64_t>(1, kTaskPixels / pixels);
  const int64_t bands = std::clamp<int64_t>(pixels / kTaskPixels, 1, out_h);
  const int64_t groups = (planes + together - 1) / together;
  parallel.run(groups * bands, [&](int64_t task) {
    const int64_t band = task % bands, group = task / bands;
    for (int64_t p = group * together; p < std::min((group + 1) * together, planes); ++p) {
      const float* in = input.data + p / g.channels * input.stride[0] + p % g.channels * input.stride[1];
      pool.rows(in, input.stride[2], out_h * band / bands, out_h * (band + 1) / bands,
                output + p * out_plane);
    }
  });
}

void pool_strided(const MaxPool2dGeometry& g, const Pool& pool, const ConstTensor4& input, float* output,
                  Parallel& parallel) {
  const int64_t plane = g.in_h * g.in_w, out_h = g.out_h(), out_plane = out_h * g.out_w();
  const int64_t blocks = (g.channels + kChannelBlock - 1) / kChannelBlock;
  const int64_t (&s)[4] = input.stride;
  parallel.run(g.batch * blocks, [&](int64_t task) {
    static thread_local AlignedBuffer buffer;
    const int64_t n = task / blocks, first = task % blocks * kChannelBlock;
    const int64_t channels = std::min(kChannelBlock, g.channels - first);
    float* const planes = buffer.reserve(static_cast<size_t>(channels * plane));
    const float* const image = input.data + n * s[0] + first * s[1];
    for (int64_t y = 0; y < g.in_h; ++y)
      for (int64_t x = 0; x < g.in_w; ++x)
        for (int64_t c = 0; c < channels; ++c)
          planes[c * plane + y * g.in_w + x] = image[c * s[1] + y * s[2] + x * s[3]];
    for (int64_t c = 0; c < channels; ++c)
      pool.rows(planes + c * plane, g.in_w, 0, out_h, output + (n * g.channels + first + c) * out_plane);
  });
}

}  // namespace

int64_t max_pool_row(const MaxPool2dGeometry& g, int64_t lanes) {
  // Strides above 2 take every stride-th of the windows at stride 1.
  const int64_t windows = g.stride_w <= 2 ? g.out_w() : (g.out_w() - 1) * g.stride_w + 1;
  const int64_t read = (windows + lanes) * (g.stride_w == 2 ? 2 : 1) + (g.kernel_w - 1) * g.dilation_w;
  const int64_t alignment = lanes;
  return (std::max(read, g.pad_w + g.in_w) + alignment + lanes) / lanes * lanes;
}

int64_t max_pool_rows(int64_t row_length) {
  return std::max<int64_t>(1, 1024 / row_length);
}

void MaxPool2dGeometry::validate() const {
  // Bounds far above any real layer keep every product below within int64.
  constexpr int64_t limit = int64_t{1} << 20;
  check(batch >= 0 && channels >= 0 && batch < (int64_t{1} << 31) && channels < (int64_t{1} << 31),
        "input of ", batch, " images with ", channels, " channels: expected 0 or more.");
  check(in_h >= 1 && in_w >= 1 && in_h < limit && in_w < limit, "input image of ", in_h, " x ", in_w,
        ": each side must be 1 to ", limit - 1, " pixels.");
  check(kernel_h >= 1 && kernel_w >= 1 && kernel_h < limit && kernel_w < limit, "kernel_size (", kernel_h,
        ", ", kernel_w, "): each must be at least 1.");
  check(stride_h >= 1 && stride_w >= 1 && stride_h < limit && stride_w < limit, "stride (", stride_h, ", ",
        stride_w, "): each must be at least 1.");
  check(dilation_h >= 1 && dilation_w >= 1 && dilation_h < limit && dilation_w < limit, "dilation (",
        dilation_h, ", ", dilation_w, "): each must be at least 1.");
  check(pad_h >= 0 && pad_w >= 0 && pad_h <= kernel_h / 2 && pad_w <= kernel_w / 2, "padding (", pad_h, ", ",
        pad_w, ") with kernel_size (", kernel_h, ", ", kernel_w, "): each must be 0 to half of the kernel.");
  check(out_h() >= 1 && out_w() >= 1, "input image of ", in_h, " x ", in_w, " with padding (", pad_h, ", ",
        pad_w, ") is smaller than the kernel's reach of ", dilation_h * (kernel_h - 1) + 1, " x ",
        dilation_w * (kernel_w - 1) + 1, ": use a larger image, more padding or a smaller kernel.");
}

void max_pool2d(const MaxPool2dGeometry& g, const ConstTensor4& input, float* output, Parallel& parallel) {
  g.validate();
  if (g.batch == 0 || g.channels == 0) return;
  const Pool pool(g, selected_max_pool_kernels());
  if (input.stride[3] == 1 || g.in_w == 1)
    pool_rows(g, pool, input, output, parallel);
  else
    pool_strided(g, pool, input, output, parallel);
}

}  // namespace semisparse
