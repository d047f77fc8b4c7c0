// SPDX-License-Identifier: Apache-2.0
#include "core/cpu/isa.h"

#include <cstdlib>

#include "core/base/error.h"
#include "core/cpu/cpu.h"

namespace semisparse {

bool isa_supported(const std::string& isa) {
  if (isa == "avx2") return cpu_has("avx2") && cpu_has("fma");
  if (isa == "avx512")
    return cpu_has("avx512f") && cpu_has("avx512vl") && cpu_has("avx512bw") && cpu_has("avx512dq");
  if (isa == "neon") return cpu_has("neon");
  if (isa == "neon_fp16") return cpu_has("neon") && cpu_has("fp16");
  return isa == "scalar";
}

size_t choose_isa(const std::vector<std::string>& available) {
  require_features();
  const char* const wanted = std::getenv("SEMISPARSE_ISA");
  std::string known;
  for (size_t i = 0; i < available.size(); ++i) {
    if (!isa_supported(available[i])) continue;
    if (wanted == nullptr || *wanted == '\0' || wanted == available[i]) return i;
    known += (known.empty() ? "" : ", ") + available[i];
  }
  fail("SEMISPARSE_ISA is '", wanted == nullptr ? "" : wanted, "', but this machine has kernels for: ", known,
       ". Unset it or choose one of these.");
}

}  // namespace semisparse
