// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/conv2d.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "core/base/error.h"
#include "core/conv2d/algorithm.h"
#include "core/conv2d/direct.h"
#include "core/conv2d/im2col.h"
#include "core/conv2d/widened.h"
#include "core/depthwise/depthwise.h"
#include "core/row_run/row_run.h"
#include "core/weights/prepare.h"
#include "core/winograd/winograd.h"

namespace semisparse {
namespace {

// Everything that a call needs besides its tensors, found once for a geometry and the content of a mask.
struct LayerPlan {
  Conv2dGeometry geometry;  // of any batch
  int threads = 1;
  bool masked = false;
  std::vector<uint8_t> mask;
  uint32_t settings = 0;
  bool half = false;     // of tensors in half precision
  bool widened = false;  // which are computed in float32, by the plan that those have
  Algorithm algorithm = Algorithm::im2col;
  std::shared_ptr<const ColumnPlan> columns;
  std::shared_ptr<const TilePlan> tiles;
  std::shared_ptr<const PreparedWeight> weight;
  DirectLayout layout;
  std::shared_ptr<const std::vector<float>> plain;  // depthwise: as unpacked

  bool fits(const Conv2dGeometry& g, const uint8_t* m, bool in_half, int thread_count) const {
    const Conv2dGeometry& a = geometry;
    return a.in_h == g.in_h && a.in_w == g.in_w && a.stride_h == g.stride_h && a.stride_w == g.stride_w &&
           a.pad_h == g.pad_h && a.pad_w == g.pad_w && a.dilation_h == g.dilation_h &&
           a.dilation_w == g.dilation_w && half == in_half && threads == thread_count &&
           masked == (m != nullptr) && (m == nullptr || std::memcmp(mask.data(), m, mask.size()) == 0);
  }
};

// Channels in a chunk for tensors of E, of the most that the caches suggest. Rounding errors of a sum in half
// precision grow with its products: some 64 of them, in the fullest filter, before it goes on in float32.
template <class E>
int limit_chunk(int channels, const WeightShape& shape, int64_t fullest) {
  constexpr int64_t kProducts = 64;
  if (std::is_same_v<E, float>) return channels;
  const int64_t fit = kProducts * shape.in_channels_per_group / std::max<int64_t>(fullest, 1);
  return static_cast<int>(std::clamp<int64_t>(fit, 1, channels));
}

void check_shape(const WeightShape& found, const WeightShape& expected) {
  check(found.out_channels == expected.out_channels &&
            found.in_channels_per_group == expected.in_channels_per_group &&
            found.kernel_h == expected.kernel_h && found.kernel_w == expected.kernel_w &&
            found.groups == expected.groups,
        "packed weight has shape (", found.out_channels, ", ", found.in_channels_per_group, ", ",
        found.kernel_h, ", ", found.kernel_w, ") and groups=", found.groups,
        ", but weight_shape and groups of this call are (", expected.out_channels, ", ",
        expected.in_channels_per_group, ", ", expected.kernel_h, ", ", expected.kernel_w,
        ") and groups=", expected.groups, ": pass the shape that was packed.");
}

}  // namespace

// What prepared weights depend on: channels in a chunk and its runs; for Winograd also its tile (else 0), the
// stride and the order of its planes.
struct PreparedKey {
  int chunk = 0;
  bool equal_runs = false;
  int tile = 0;
  int64_t stride_h = 0, stride_w = 0;
  int together = 0, full_blocks = 0;
  bool operator<(const PreparedKey& o) const {
    return std::tie(chunk, equal_runs, tile, stride_h, stride_w, together, full_blocks) <
           std::tie(o.chunk, o.equal_runs, o.tile, o.stride_h, o.stride_w, o.together, o.full_blocks);
  }
};

struct PackedWeight::Impl {
  mutable std::mutex mutex;
  std::optional<PackedInfo> info;
  std::map<PreparedKey, std::shared_ptr<const PreparedWeight>> prepared;
  std::shared_ptr<const std::vector<float>> plain;
  std::list<std::shared_ptr<const LayerPlan>> plans;  // most recently used first

  // For tensors of E.
  template <class E>
  std::shared_ptr<const LayerPlan> plan(const Conv2dGeometry& g, const uint8_t* packed, size_t size,
                                        const uint8_t* mask, int threads);
  // By the key's chunk; `planes` for Winograd.
  const std::shared_ptr<const PreparedWeight>& prepare(const PreparedKey& key, const uint8_t* packed,
                                                       size_t size, const KernelPlanes& planes);
};

PackedWeight::PackedWeight() : impl_(std::make_unique<Impl>()) {}
PackedWeight::~PackedWeight() = default;

size_t PackedWeight::bytes() const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  size_t total = impl_->plain != nullptr ? sizeof(float) * impl_->plain->size() : 0;
  for (const auto& entry : impl_->prepared) total += entry.second->bytes();
  return total;
}

const std::shared_ptr<const PreparedWeight>& PackedWeight::Impl::prepare(const PreparedKey& key,
                                                                         const uint8_t* packed, size_t size,
                                                                         const KernelPlanes& planes) {
  auto& entry = prepared[key];
  if (entry == nullptr) entry = prepare_packed(packed, size, {key.chunk, key.equal_runs}, planes);
  return entry;
}

template <class E>
std::shared_ptr<const LayerPlan> PackedWeight::Impl::plan(const Conv2dGeometry& g, const uint8_t* packed,
                                                          size_t size, const uint8_t* mask, int threads) {
  constexpr size_t kCapacity = 16;  // sizes, masks and threads that one layer is used with in turn
  constexpr bool half = std::is_same_v<E, Half>;
  if (!info) {
    const PackedInfo found = inspect_weights(packed, size);
    check_shape(found.shape, g.weight);
    info = found;
  }
  check_shape(info->shape, g.weight);
  const uint32_t current = algorithm_settings();
  for (auto it = plans.begin(); it != plans.end(); ++it) {
    if (!(*it)->fits(g, mask, half, threads)) continue;
    if ((*it)->settings == current) {
      plans.splice(plans.begin(), plans, it);
      return plans.front();
    }
    plans.erase(it);
    break;
  }
  auto plan = std::make_shared<LayerPlan>();
  plan->geometry = g;
  plan->threads = threads;
  plan->masked = mask != nullptr;
  if (mask != nullptr) plan->mask.assign(mask, mask + g.out_h() * g.out_w());
  plan->settings = current;
  plan->half = half;
  if constexpr (half) {
    const auto algorithm = decide_half_algorithm(g, *info, mask);
    plan->widened = !algorithm;
    plan->algorithm = algorithm.value_or(Algorithm::automatic);
  } else {
    plan->algorithm = decide_algorithm(g, *info, mask);
  }
  const double density = static_cast<double>(info->nonzeros) / static_cast<double>(info->shape.elements());
  const int64_t fullest = half && !plan->widened ? fullest_filter(packed, size) : 0;
  if (plan->widened) {
    // nothing to prepare
  } else if (plan->algorithm == Algorithm::depthwise) {
    if (plain == nullptr) {
      auto unpacked = std::make_shared<std::vector<float>>(static_cast<size_t>(g.weight.elements()));
      unpack_weight(packed, size, unpacked->data());
      plain = std::move(unpacked);
    }
    plan->plain = plain;
  } else if (plan->algorithm == Algorithm::im2col) {
    plan->columns = im2col_plan<E>(g, mask, 100 * info->nonzeros >= 99 * info->shape.elements(), threads);
    const int chunk = im2col_chunk<E>(g, *plan->columns, density);
    plan->weight = prepare({limit_chunk<E>(chunk, g.weight, fullest), im2col_equal_runs<E>(*plan->columns)},
                           packed, size, {});
  } else if (plan->algorithm == Algorithm::direct) {
    plan->columns = direct_plan<E>(g, mask, threads);
    const int chunk = direct_chunk<E>(g, *plan->columns, density);
    plan->weight = prepare({limit_chunk<E>(chunk, g.weight, fullest)}, packed, size, {});
    plan->layout = direct_layout<E>(g, *plan->weight, *plan->columns);
  } else {
    const int tile = plan->algorithm == Algorithm::winograd4 ? 4 : 2;
    const RowRunKernels& kernels = selected_kernels();
    plan->tiles = make_tile_plan(winograd_size(g, tile).value(), static_cast<int32_t>(g.out_h()),
                                 static_cast<int32_t>(g.out_w()), mask,
                                 {kernels.lanes, kernels.max_vectors, 0, threads});
    const bool every_kernel = info->every_kernel();
    const KernelPlanes planes = winograd_weight_planes(g, *plan->tiles, every_kernel);
    plan->weight = prepare({winograd_chunk(g, *plan->tiles, every_kernel), false, tile, g.stride_h,
                            g.stride_w, planes.together, planes.full_blocks},
                           packed, size, planes);
  }
  plans.push_front(plan);
  if (plans.size() > kCapacity) plans.pop_back();
  return plan;
}

namespace {

template <class E>
std::shared_ptr<const LayerPlan> find_plan(const Conv2dGeometry& g, PackedWeight& weight,
                                           const uint8_t* packed, size_t size, const uint8_t* mask,
                                           const Parallel& parallel) {
  auto& impl = weight.impl();
  std::lock_guard<std::mutex> lock(impl.mutex);
  return impl.plan<E>(g, packed, size, mask, parallel.threads());
}

template <class E>
void conv2d_plain(const Conv2dGeometry& g, const float* weight, const uint8_t* mask,
                  const BasicConv2dOperands<E>& operands, Parallel& parallel) {
  const auto plan = im2col_plan<E>(g, mask, std::is_same_v<E, float>, parallel.threads());
  const int chunk = limit_chunk<E>(im2col_chunk<E>(g, *plan, 1.0), g.weight,
                                   g.weight.in_channels_per_group * g.weight.taps());
  im2col_conv2d(g, *prepare_plain(weight, g.weight, chunk), *plan, operands, parallel);
}

}  // namespace

void conv2d(const Conv2dGeometry& g, PackedWeight& weight, const uint8_t* packed, size_t size,
            const uint8_t* mask, const Conv2dOperands& operands, Parallel& parallel) {
  g.validate();
  const auto plan = find_plan<float>(g, weight, packed, size, mask, parallel);
  if (plan->algorithm == Algorithm::depthwise)
    depthwise_conv2d(g, plan->plain->data(), mask, operands, parallel);
  else if (plan->algorithm == Algorithm::im2col)
    im2col_conv2d(g, *plan->weight, *plan->columns, operands, parallel);
  else if (plan->algorithm == Algorithm::direct)
    direct_conv2d(g, *plan->weight, *plan->columns, plan->layout, operands, parallel);
  else
    winograd_conv2d(g, *plan->weight, *plan->tiles, operands, parallel);
}

void conv2d(const Conv2dGeometry& g, const float* weight, const uint8_t* mask, const Conv2dOperands& operands,
            Parallel& parallel) {
  g.validate();
  if (depthwise_applies(g)) return depthwise_conv2d(g, weight, mask, operands, parallel);
  conv2d_plain(g, weight, mask, operands, parallel);
}

void conv2d(const Conv2dGeometry& g, PackedWeight& weight, const uint8_t* packed, size_t size,
            const uint8_t* mask, const HalfConv2dOperands& operands, Parallel& parallel) {
  g.validate();
  const auto plan =
      selected_half_kernels() == nullptr ? nullptr : find_plan<Half>(g, weight, packed, size, mask, parallel);
  if (plan == nullptr || plan->widened)
    widened_conv2d(g, operands, parallel, [&](const Conv2dGeometry& part, const Conv2dOperands& floats) {
      conv2d(part, weight, packed, size, mask, floats, parallel);
    });
  else if (plan->algorithm == Algorithm::im2col)
    im2col_conv2d(g, *plan->weight, *plan->columns, operands, parallel);
  else
    direct_conv2d(g, *plan->weight, *plan->columns, plan->layout, operands, parallel);
}

void conv2d(const Conv2dGeometry& g, const float* weight, const uint8_t* mask,
            const HalfConv2dOperands& operands, Parallel& parallel) {
  g.validate();
  if (selected_half_kernels() != nullptr && !depthwise_applies(g))
    return conv2d_plain(g, weight, mask, operands, parallel);
  widened_conv2d(g, operands, parallel, [&](const Conv2dGeometry& part, const Conv2dOperands& floats) {
    conv2d(part, weight, mask, floats, parallel);
  });
}

}  // namespace semisparse
