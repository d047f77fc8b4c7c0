// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/cpu.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "core/base/error.h"

namespace semisparse {
namespace {

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "48K" -> 49152; 0 where the system does not tell.
size_t cache_bytes(int index) {
  const std::string base = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
  const std::string size = read_line(base + "/size");
  if (size.empty()) return 0;
  char* end = nullptr;
  size_t bytes = std::strtoul(size.c_str(), &end, 10);
  if (*end == 'K') bytes <<= 10;
  if (*end == 'M') bytes <<= 20;
  return bytes;
}

CpuInfo detect() {
  CpuInfo info;
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0 || line.rfind("CPU part", 0) == 0) {
      info.name = line.substr(std::min(line.size(), line.find(':') + 2));
      break;
    }
  }
  for (int i = 0; i < 4; ++i) {
    const std::string base = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i);
    const std::string level = read_line(base + "/level"), type = read_line(base + "/type");
    if (level == "1" && type == "Data") info.l1_bytes = cache_bytes(i);
    if (level == "2") info.l2_bytes = cache_bytes(i);
  }
#if defined(__x86_64__)
  info.architecture = "x86_64";
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) info.features.push_back("avx2");
  if (__builtin_cpu_supports("fma")) info.features.push_back("fma");
  if (__builtin_cpu_supports("avx512f")) info.features.push_back("avx512f");
  if (__builtin_cpu_supports("avx512vl")) info.features.push_back("avx512vl");
  if (__builtin_cpu_supports("avx512bw")) info.features.push_back("avx512bw");
  if (__builtin_cpu_supports("avx512dq")) info.features.push_back("avx512dq");
#elif defined(__aarch64__)
  info.architecture = "aarch64";
  std::ifstream cores("/proc/cpuinfo");
  info.in_order = all_in_order(cores);
#if defined(__linux__)
  const unsigned long hwcap = getauxval(AT_HWCAP);
  if (hwcap & HWCAP_ASIMD) info.features.push_back("neon");
  if (hwcap & HWCAP_ASIMDHP) info.features.push_back("fp16");
  if (hwcap & HWCAP_ASIMDDP) info.features.push_back("dotprod");
  if (hwcap & HWCAP_SVE) info.features.push_back("sve");
#else
  info.features.push_back("neon");  // part of every ARMv8 application core
#endif
#else
  info.architecture = "other";
#endif
  // Where the system is silent, assume the smallest caches in the target range (Cortex-A53).
  if (info.l1_bytes == 0) info.l1_bytes = 32u << 10;
  if (info.l2_bytes == 0) info.l2_bytes = 512u << 10;
  return info;
}

// What follows the colon if the line begins with `key`.
std::string field(const std::string& line, const char* key) {
  const size_t colon = line.find(": ");
  return line.rfind(key, 0) == 0 && colon != std::string::npos ? line.substr(colon + 2) : "";
}

}  // namespace

bool all_in_order(std::istream& cpuinfo) {
  bool any = false, arm = false;
  for (std::string line; std::getline(cpuinfo, line);) {
    const std::string maker = field(line, "CPU implementer"), part = field(line, "CPU part");
    if (!maker.empty()) arm = maker == "0x41";
    if (part.empty()) continue;
    any = true;
    // Cortex-A53, A35, A55, A34, A510, A520
    const bool known = part == "0xd03" || part == "0xd04" || part == "0xd05" || part == "0xd02" ||
                       part == "0xd46" || part == "0xd80";
    if (!arm || !known) return false;
  }
  return any;
}

const CpuInfo& cpu_info() {
  static const CpuInfo info = detect();
  return info;
}

std::string missing_features([[maybe_unused]] unsigned long hwcap) {
#if defined(__aarch64__) && defined(__linux__)
  if ((hwcap & HWCAP_ASIMD) == 0)
    return "this processor, or its emulator, has no Advanced SIMD (NEON), which all code for 64-bit ARM "
           "uses: run "
           "semisparse on an ARMv8-A core such as Cortex-A53 or newer.";
#endif
  return "";
}

void require_features() {
#if defined(__aarch64__) && defined(__linux__)
  const std::string missing = missing_features(getauxval(AT_HWCAP));
#else
  const std::string missing = missing_features(0);
#endif
  check(missing.empty(), missing);
}

bool cpu_has(const char* feature) {
  const auto& features = cpu_info().features;
  return std::find(features.begin(), features.end(), feature) != features.end();
}

}  // namespace semisparse
