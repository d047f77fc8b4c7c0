// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace semisparse {

// F(tile x tile, taps x taps).
struct WinogradSize {
  int tile = 0, taps = 0;
  constexpr int patch() const { return tile + taps - 1; }
  constexpr int planes() const { return patch() * patch(); }
  bool operator==(const WinogradSize& other) const { return tile == other.tile && taps == other.taps; }
};

// Every size that there are kernels for.
constexpr WinogradSize kWinogradSizes[] = {{4, 3}, {2, 3}, {4, 4}};

}  // namespace semisparse
