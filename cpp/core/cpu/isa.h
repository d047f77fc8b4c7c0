// SPDX-License-Identifier: Apache-2.0
// Which instruction set's kernels run: one rule for every kernel family.
#pragma once

#include <string>
#include <vector>

namespace semisparse {

// Whether this machine runs what sources.txt compiles for `isa`: scalar, avx2, avx512, neon or neon_fp16.
bool isa_supported(const std::string& isa);

// Index of the first of `available` (names, best first) that this machine supports, or of the one named by
// the environment variable SEMISPARSE_ISA. Throws Error if that is not among them or not supported.
size_t choose_isa(const std::vector<std::string>& available);

// The same for a family's kernel sets, structs with a member `isa`.
template <class Kernels>
const Kernels& choose_kernels(const std::vector<const Kernels*>& all) {
  std::vector<std::string> names;
  for (const Kernels* kernels : all) names.push_back(kernels->isa);
  return *all[choose_isa(names)];
}

}  // namespace semisparse
