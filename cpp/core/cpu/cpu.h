// SPDX-License-Identifier: Apache-2.0
// What the processor at hand offers, found at run time. Nothing is assumed at build time beyond the baseline
// of the architecture (x86-64, ARMv8.0).
#pragma once

#include <cstddef>
#include <istream>
#include <string>
#include <vector>

namespace semisparse {

struct CpuInfo {
  std::string architecture;           // "x86_64", "aarch64", ...
  std::string name;                   // as the operating system names it, may be empty
  std::vector<std::string> features;  // those the kernels look at, e.g. {"avx2", "fma", "avx512f"}
  size_t l1_bytes = 0;                // data cache of one core
  size_t l2_bytes = 0;
  bool in_order = false;  // all cores execute in program order
};

const CpuInfo& cpu_info();
bool cpu_has(const char* feature);

// Whether all cores of a /proc/cpuinfo are ARM's that execute in program order.
bool all_in_order(std::istream& cpuinfo);

// What the kernels cannot do without and the processor lacks, in words; empty where all is well.
// `hwcap`: AT_HWCAP of Linux's auxiliary vector, only looked at on ARM.
std::string missing_features(unsigned long hwcap);
// Throws Error with that text, if there is any.
void require_features();

}  // namespace semisparse
