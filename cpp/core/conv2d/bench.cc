// SPDX-License-Identifier: Apache-2.0
// Where a layer's time goes, without Python: the whole operator by the algorithm that it chooses, and its
// row-run kernels alone (packed and direct; one thread), interleaved over column masks and weight sparsity,
// as fractions of this machine's measured FMA peak. Only multiplications of weights that are not zero, for
// columns that are kept, count; Winograd needs fewer of them and may pass the peak. Random data, medians.
//   cmake -S cpp/core -B build/bench -G Ninja -DSEMISPARSE_BENCH=ON && cmake --build build/bench
//   build/bench/bench_conv2d [threads, default 1]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/conv2d/bench_kernels.h"
#include "core/conv2d/conv2d.h"
#include "core/testing/fma_peak.h"

using namespace semisparse;
using testing::seconds;

namespace {

std::mt19937 random_engine(1);

std::vector<float> normal(size_t n) {
  std::normal_distribution<float> d;
  std::vector<float> v(n);
  for (float& x : v) x = d(random_engine);
  return v;
}

double median(std::vector<double>& times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Three calls after one that refills the caches.
template <class Call>
void time_calls(std::vector<double>& times, Call call) {
  call();
  for (int i = 0; i < 3; ++i) {
    const double start = seconds();
    call();
    times.push_back(seconds() - start);
  }
}

struct Case {
  std::string name;
  double columns;  // fraction removed
  int run;         // removed in runs of so many
  int weights;     // 0 dense, 1 per-kernel patterns, 2 shared by 4 filters, 3 with connectivity 1/3.6
};

std::vector<uint8_t> random_mask(int pixels, double removed, int run) {
  std::vector<uint8_t> mask(static_cast<size_t>(pixels), 1);
  std::vector<int> starts;
  for (int p = 0; p < pixels; p += run) starts.push_back(p);
  std::shuffle(starts.begin(), starts.end(), random_engine);
  int left = static_cast<int>(removed * pixels + 0.5);
  for (const int s : starts)
    for (int i = s; i < std::min(pixels, s + run) && left > 0; ++i, --left) mask[static_cast<size_t>(i)] = 0;
  return mask;
}

std::vector<float> random_weight(const WeightShape& s, int kind) {
  auto w = normal(static_cast<size_t>(s.elements()));
  if (kind == 0 || s.taps() != 9) return w;
  std::vector<int> library;
  while (library.size() < 8) {
    int p = 1 << 4;
    while (__builtin_popcount(static_cast<unsigned>(p)) < 4) p |= 1 << (random_engine() % 9);
    library.push_back(p);
  }
  std::vector<int> pattern(static_cast<size_t>(s.in_channels_per_group));
  for (int64_t f = 0; f < s.out_channels; ++f)
    for (int64_t c = 0; c < s.in_channels_per_group; ++c) {
      if (kind == 1 || f % 4 == 0) {
        const bool keep = kind < 3 || random_engine() % 1000 < 278;
        pattern[static_cast<size_t>(c)] = keep ? library[random_engine() % 8] : 0;
      }
      for (int t = 0; t < 9; ++t)
        if (!(pattern[static_cast<size_t>(c)] >> t & 1))
          w[static_cast<size_t>((f * s.in_channels_per_group + c) * 9 + t)] = 0;
    }
  return w;
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 1);
  const double peak = testing::fma_peak_flops();
  if (peak == 0) {
    std::fprintf(stderr, "%s kernels: there is no peak to compare them with\n", kernel_name().c_str());
    return 1;
  }
  std::printf("%s, peak %.0f GFLOP/s a core; median ms, x dense, useful share of the peak\n",
              kernel_name().c_str(), peak / 1e9);
  const std::vector<Case> cases = {
      {"dense", 0, 1, 0},       {"pixel 0.1", .1, 1, 0},  {"pixel 0.2", .2, 1, 0}, {"pixel 0.3", .3, 1, 0},
      {"run16 0.3", .3, 16, 0}, {"pattern", 0, 1, 1},     {"pattern g4", 0, 1, 2}, {"g4 + px0.3", .3, 1, 2},
      {"8x g4", 0, 1, 3},       {"8x g4+px0.3", .3, 1, 3}};
  const int64_t layers[][5] = {{64, 64, 56, 3, 1},  {128, 128, 28, 3, 1}, {256, 256, 14, 3, 1},
                               {512, 512, 7, 3, 1}, {64, 128, 56, 3, 2},  {64, 128, 56, 1, 2},
                               {3, 64, 224, 7, 2},  {256, 64, 56, 1, 1}};
  for (const auto& l : layers) {
    Conv2dGeometry g;
    g.in_h = g.in_w = l[2];
    g.weight = {l[1], l[0], l[3], l[3], 1};
    g.stride_h = g.stride_w = l[4];
    g.pad_h = g.pad_w = l[3] / 2;
    const auto input = normal(static_cast<size_t>(l[0] * l[2] * l[2])),
               bias = normal(static_cast<size_t>(l[1]));
    const int pixels = static_cast<int>(g.out_h() * g.out_w());
    std::vector<float> out(static_cast<size_t>(l[1] * pixels));
    struct Run {
      std::vector<uint8_t> packed, mask;
      PackedWeight weight;
      double flops = 0;
      std::vector<double> times, packed_times, direct_times;
      std::unique_ptr<KernelsAlone> kernels;
    };
    // Phases of a strided layer and 1x1 layers run the same kernels.
    const bool kernels = l[4] == 1 && l[3] == 3;
    const auto padded = normal(static_cast<size_t>(padded_plane(g) * l[0]));
    std::vector<Run> runs(cases.size());
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto w = random_weight(g.weight, cases[i].weights);
      runs[i].packed = pack_weight(w.data(), g.weight);
      if (cases[i].columns > 0) runs[i].mask = random_mask(pixels, cases[i].columns, cases[i].run);
      const double kept =
          runs[i].mask.empty() ? pixels : std::count(runs[i].mask.begin(), runs[i].mask.end(), 1);
      if (kernels)
        runs[i].kernels = std::make_unique<KernelsAlone>(
            g, runs[i].packed, runs[i].mask.empty() ? nullptr : runs[i].mask.data(), padded);
      runs[i].flops = 2 * kept * static_cast<double>(w.size() - std::count(w.begin(), w.end(), 0.0f));
    }
    for (int round = 0; round < 20; ++round) {
      for (size_t i = 0; i < cases.size(); ++i) {
        Run& run = runs[i];
        Conv2dOperands o;
        o.input = {input.data(), {l[0] * l[2] * l[2], l[2] * l[2], l[2], 1}};
        o.bias = bias.data();
        o.output = out.data();
        o.activation = Activation::relu;
        time_calls(run.times, [&] {
          conv2d(g, run.weight, run.packed.data(), run.packed.size(),
                 run.mask.empty() ? nullptr : run.mask.data(), o, pool);
        });
        if (!kernels) continue;
        time_calls(run.packed_times, [&] { run.kernels->im2col(); });
        time_calls(run.direct_times, [&] { run.kernels->direct(); });
      }
    }
    std::printf("%d->%d %dx%d /%d @%d\n", (int)l[0], (int)l[1], (int)l[3], (int)l[3], (int)l[4], (int)l[2]);
    double dense = 0;
    for (size_t i = 0; i < cases.size(); ++i) {
      const double t = median(runs[i].times);
      if (i == 0) dense = t;
      const auto useful = [&](double time) { return 100 * runs[i].flops / time / peak; };
      std::printf("  %-12s %.3f ms  %.2fx  useful %.0f%%", cases[i].name.c_str(), t * 1e3, dense / t,
                  useful(t));
      if (kernels)
        std::printf("; kernels alone: packed %.0f%%, direct %.0f%%", useful(median(runs[i].packed_times)),
                    useful(median(runs[i].direct_times)));
      std::printf("\n");
    }
  }
}
