// SPDX-License-Identifier: Apache-2.0
#include "core/conv2d/algorithm.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/base/error.h"
#include "core/conv2d/direct.h"
#include "core/conv2d/padded_input.h"
#include "core/depthwise/depthwise.h"
#include "core/row_run/row_run.h"
#include "core/winograd/winograd.h"

namespace semisparse {
namespace {

constexpr Algorithm kAll[] = {Algorithm::automatic, Algorithm::im2col,    Algorithm::direct,
                              Algorithm::winograd4, Algorithm::winograd2, Algorithm::depthwise};

struct Settings {
  std::mutex mutex;
  Algorithm forced = Algorithm::automatic;
  std::map<std::tuple<uint64_t, int64_t, int64_t>, Algorithm> preferred;
  std::atomic<uint32_t> generation{0};
  Settings() {
    const char* const name = std::getenv("SEMISPARSE_ALGORITHM");
    if (name != nullptr && *name != '\0') forced = parse_algorithm(name);
  }
};

Settings& settings() {
  static Settings instance;
  return instance;
}

int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// Costs in multiply-adds of the row-run kernel, fitted to the layers of bench_conv2d.

// Weights come from memory or the last cache, partly hidden behind the arithmetic. Two products for each byte
// is what a Cortex-A72 or A76 computes while it loads one from memory, too: of 512 channels at 7x7,
// F(4x4,3x3) has 38 MB to load for 9.4M products of vectors, F(2x2,3x3) 17 MB for 17M, im2col 9 MB for 29M.
// F(2x2,3x3) is balanced, and the better the more cores share the memory.
double weight_cost(double weights) {
  return 2 * sizeof(float) * weights;
}

// Vectors hold twice the halves, but their sums are widened now and then: by the instructions of NEON.
template <class E>
constexpr double kElement = std::is_same_v<E, Half> ? 0.62 : 1.0;

// A value copied with its padding, or into a phase; or packed, once for each tap; or stored. (Stores take 14
// of these units, copies some more than stated: so much is missing in the transforms of Winograd, too.)
constexpr double kCopy = 12, kPack = 8, kStore = 8;

double store_cost(const Conv2dGeometry& g) {
  return kStore * static_cast<double>(g.out_channels() * g.out_h() * g.out_w());
}

// Rows that fewer than four filters share are in short runs, whose ends are mispredicted, and each of its
// loads serves fewer products. In panels as wide as can be. (Patterns of single filters: measured over those
// shared by 4, 1.2 to 1.3x at 64 and 128 channels, 1.5x at 256, 2x at 512.)
template <class E>
double scattered_cost(const PackedInfo& w, double columns) {
  const BasicRowRunKernels<E>& kernels = kernels_for<E>();
  const double panels = std::ceil(columns / (kernels.max_vectors * kernels.lanes));
  const double alone = static_cast<double>(w.block_rows) - static_cast<double>(w.nonzeros) / 4;
  return 11.0 * kernels.lanes * panels * alone;
}

template <class E>
double im2col_cost(const Conv2dGeometry& g, const PackedInfo& w, int64_t kept) {
  const BasicRowRunKernels<E>& kernels = kernels_for<E>();
  const bool dense = 100 * w.nonzeros >= 99 * g.weight.elements();
  const bool tail = dense && kept > kernels.lanes && kept % kernels.lanes <= kernels.max_tail;
  const double columns = static_cast<double>(tail ? kept : round_up(kept, kernels.lanes));
  const double rows = static_cast<double>(g.in_channels() * g.weight.taps()),
               n = static_cast<double>(w.nonzeros);
  // A padded copy that leaves the L2 cache is read from the next one. (Smaller ones are in the factors.)
  const double copied = static_cast<double>(g.in_channels() * padded_plane(g));
  const bool far = g.pad_h + g.pad_w > 0 && leaves_l2<E>(g.in_channels() * padded_plane(g));
  // Short runs and chunks that leave the cache make sparse weights dearer.
  return kElement<E> * ((dense ? 1.0 : 1.05) * n * columns + scattered_cost<E>(w, columns) +
                        kPack * rows * columns + (far ? kCopy * copied : 0.0)) +
         store_cost(g) + weight_cost(n);
}

template <class E>
double direct_cost(const Conv2dGeometry& g, const PackedInfo& w, const uint8_t* mask) {
  const auto plan = direct_plan<E>(g, mask);
  const double columns = static_cast<double>(plan->vectors.size()) * plan->lanes;
  const double pixels = static_cast<double>(g.in_channels() * padded_plane(g)),
               n = static_cast<double>(w.nonzeros);
  const bool in_place = g.stride_h * g.stride_w == 1 && g.pad_h + g.pad_w == 0;
  // Vectors that straddle cache lines make loads a little dearer; those of a 1x1 convolution need not.
  const bool aligned = in_place && g.weight.taps() == 1 && g.in_h * g.in_w % plan->lanes == 0;
  const double copies = in_place ? 0.0 : kCopy * pixels;
  // Phases lie apart: what several chunks of channels have under a panel does not stay in the L1 cache.
  const double density = n / static_cast<double>(g.weight.elements());
  const bool apart =
      g.stride_h * g.stride_w > 1 && direct_chunk<E>(g, *plan, density) < g.weight.in_channels_per_group;
  const double loads = aligned ? 1.0 : apart ? 1.15 : 1.05;
  const double products = loads * n * columns + scattered_cost<E>(w, columns);
  return kElement<E> * (products + copies) + store_cost(g) + weight_cost(n);
}

double winograd_cost(WinogradSize size, const Conv2dGeometry& g, const PackedInfo& w, const uint8_t* mask) {
  const int lanes = selected_kernels().lanes;
  const int64_t computed = count_tiles(size.tile, g.out_h(), g.out_w(), mask),
                tiles = round_up(computed, lanes), phases = g.stride_h * g.stride_w;
  const double n = size.planes() * static_cast<double>(w.kernels * phases), t = static_cast<double>(tiles);
  // Transforms cost instructions by the vector: more of them where vectors are short.
  const double transforms = (14 + 32.0 / lanes) * size.planes() * t *
                            static_cast<double>(g.in_channels() * phases + g.out_channels());
  const bool full = w.every_kernel() && multiplies_full_blocks(g, computed, true);
  if (tiles > lanes)
    return n * (full ? 1.1 * static_cast<double>(computed) : t) + transforms + weight_cost(n);
  // A panel of one vector is bound by loads, not by arithmetic, the more so the shorter the vector. Dense
  // weights are less so, and cost by the tiles that are computed, but not less than fetching them from
  // memory, of which most is hidden.
  if (!full) return (1.2 + 1.6 / lanes) * n * t + transforms + weight_cost(n);
  const double products = std::max(16.0, 1.2 * static_cast<double>(computed));
  return n * products + transforms + weight_cost(n) / 3;
}

}  // namespace

Algorithm parse_algorithm(std::string_view name) {
  std::string known;
  for (const Algorithm a : kAll) {
    if (name == algorithm_name(a)) return a;
    known += (known.empty() ? "" : ", ") + std::string(algorithm_name(a));
  }
  fail("unknown algorithm '", std::string(name), "': expected one of ", known, ".");
}

const char* algorithm_name(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::im2col:
      return "im2col";
    case Algorithm::direct:
      return "direct";
    case Algorithm::winograd4:
      return "winograd4";
    case Algorithm::winograd2:
      return "winograd2";
    case Algorithm::depthwise:
      return "depthwise";
    case Algorithm::automatic:
      break;
  }
  return "automatic";
}

bool algorithm_applies(Algorithm algorithm, const Conv2dGeometry& geometry) {
  switch (algorithm) {
    case Algorithm::direct:
      return direct_applies<float>(geometry);
    case Algorithm::winograd4:
      return winograd_size(geometry, 4).has_value();
    case Algorithm::winograd2:
      return winograd_size(geometry, 2).has_value();
    case Algorithm::depthwise:
      return depthwise_applies(geometry);
    default:
      return true;
  }
}

namespace {

struct Choice {
  Algorithm algorithm;
  double cost;
  void offer(Algorithm other, double other_cost) {
    if (other_cost < cost) *this = {other, other_cost};
  }
};

// im2col or direct, on tensors of E.
template <class E>
Choice cheapest_product(const Conv2dGeometry& g, const PackedInfo& w, const uint8_t* mask) {
  const int64_t pixels = g.out_h() * g.out_w();
  const int64_t kept =
      mask == nullptr ? pixels : pixels - static_cast<int64_t>(std::count(mask, mask + pixels, uint8_t{0}));
  Choice best{Algorithm::im2col, im2col_cost<E>(g, w, kept)};
  if (direct_applies<E>(g)) best.offer(Algorithm::direct, direct_cost<E>(g, w, mask));
  return best;
}

Choice cheapest(const Conv2dGeometry& g, const PackedInfo& w, const uint8_t* mask) {
  if (depthwise_applies(g)) return {Algorithm::depthwise, 0};
  Choice best = cheapest_product<float>(g, w, mask);
  for (const auto& [algorithm, tile] :
       {std::pair{Algorithm::winograd4, 4}, std::pair{Algorithm::winograd2, 2}}) {
    const auto size = winograd_size(g, tile);
    if (!size) continue;
    best.offer(algorithm, winograd_cost(*size, g, w, mask));
  }
  return best;
}

}  // namespace

Algorithm cheapest_algorithm(const Conv2dGeometry& g, const PackedInfo& w, const uint8_t* mask) {
  return cheapest(g, w, mask).algorithm;
}

Algorithm force_algorithm(Algorithm algorithm) {
  Settings& s = settings();
  std::lock_guard<std::mutex> lock(s.mutex);
  ++s.generation;
  return std::exchange(s.forced, algorithm);
}

void prefer_algorithm(uint64_t checksum, int64_t in_h, int64_t in_w, Algorithm algorithm) {
  Settings& s = settings();
  std::lock_guard<std::mutex> lock(s.mutex);
  ++s.generation;
  if (algorithm == Algorithm::automatic)
    s.preferred.erase({checksum, in_h, in_w});
  else
    s.preferred[{checksum, in_h, in_w}] = algorithm;
}

namespace {

// What is forced or preferred, or automatic.
Algorithm settled_algorithm(const Conv2dGeometry& g, const PackedInfo& weight) {
  Settings& s = settings();
  Algorithm forced, preferred = Algorithm::automatic;
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    forced = s.forced;
    const auto at = s.preferred.find({weight.checksum, g.in_h, g.in_w});
    if (at != s.preferred.end()) preferred = at->second;
  }
  if (forced != Algorithm::automatic) return algorithm_applies(forced, g) ? forced : Algorithm::im2col;
  if (preferred != Algorithm::automatic) {
    check(algorithm_applies(preferred, g), "algorithm '", algorithm_name(preferred),
          "' is preferred for this layer, but cannot compute it (Winograd: 3x3 kernels of stride 1, or "
          "strided ones that come to 3x3 or, winograd4, 4x4; dilation 1 and one group; direct: images of one "
          "vector at least; depthwise: groups of one input channel): "
          "tune the model again, or load it without its tuning.");
  }
  return preferred;
}

}  // namespace

Algorithm decide_algorithm(const Conv2dGeometry& g, const PackedInfo& weight, const uint8_t* mask) {
  const Algorithm settled = settled_algorithm(g, weight);
  return settled != Algorithm::automatic ? settled : cheapest_algorithm(g, weight, mask);
}

std::optional<Algorithm> decide_half_algorithm(const Conv2dGeometry& g, const PackedInfo& weight,
                                               const uint8_t* mask) {
  if (selected_half_kernels() == nullptr) return {};
  const Algorithm settled = settled_algorithm(g, weight);
  if (settled == Algorithm::direct && direct_applies<Half>(g)) return settled;
  if (settled == Algorithm::im2col || settled == Algorithm::direct) return Algorithm::im2col;
  if (settled != Algorithm::automatic || depthwise_applies(g)) return {};
  const Choice half = cheapest_product<Half>(g, weight, mask);
  const double pixels =
      static_cast<double>(g.in_channels() * g.in_h * g.in_w + g.out_channels() * g.out_h() * g.out_w());
  const double conversions = 4 * pixels;
  if (half.cost < cheapest(g, weight, mask).cost + conversions) return half.algorithm;
  return {};
}

uint32_t algorithm_settings() {
  return settings().generation.load(std::memory_order_acquire);
}

}  // namespace semisparse
