// SPDX-License-Identifier: Apache-2.0
// The thread pool of the numpy runtime: one per process, made at first use.
#pragma once

#include <memory>

#include "core/base/parallel.h"

namespace semisparse::python {

// Number of threads that calls use from now on; at least 1.
void set_num_threads(int threads);
// Default: OMP_NUM_THREADS where it is set, otherwise the processors this process may use.
int get_num_threads();

std::shared_ptr<Parallel> shared_pool();

}  // namespace semisparse::python
