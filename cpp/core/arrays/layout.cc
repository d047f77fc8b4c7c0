// SPDX-License-Identifier: Apache-2.0
#include <cstddef>

#include "core/arrays/arrays.h"

namespace semisparse {

Layout::Layout(const std::vector<int64_t>& sizes, const std::vector<std::vector<int64_t>>& strides) {
  sizes_.clear();
  strides_.resize(strides.size());
  rows_ = 1;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 0) rows_ = 0;
    if (sizes[d] == 1) continue;
    bool joins = !sizes_.empty();
    for (size_t k = 0; joins && k < strides.size(); ++k)
      joins = strides_[k].back() == sizes[d] * strides[k][d];
    if (joins)
      sizes_.back() *= sizes[d];
    else
      sizes_.push_back(sizes[d]);
    for (size_t k = 0; k < strides.size(); ++k) {
      if (!joins) strides_[k].push_back(0);
      strides_[k].back() = strides[k][d];
    }
  }
  if (sizes_.empty()) {
    sizes_.push_back(1);
    for (auto& s : strides_) s.push_back(0);
  }
  for (size_t d = 0; d + 1 < sizes_.size(); ++d) rows_ *= sizes_[d];
}

void Layout::row(int64_t index, int64_t* offsets) const {
  for (size_t k = 0; k < strides_.size(); ++k) offsets[k] = 0;
  for (size_t d = sizes_.size() - 1; d-- > 0; index /= sizes_[d]) {
    const int64_t at = index % sizes_[d];
    for (size_t k = 0; k < strides_.size(); ++k) offsets[k] += at * strides_[k][d];
  }
}

}  // namespace semisparse
