// SPDX-License-Identifier: Apache-2.0
// The one exception of the core: bad input, said in words. The message names the value that was given, what
// is expected and what to do about it; bindings pass it on unchanged.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace semisparse {

class Error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

// Throws Error with the concatenated parts unless `condition` holds.
template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}

}  // namespace semisparse
