#!/usr/bin/env bash
# Set up a fresh checkout and run every test: formatters, C++ core (also under sanitizers), Python.
# Arguments go to pytest. Environment: see tools/setup.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh dev
export PATH="$PWD/${VENV:-.venv}/bin:$PATH"

echo "== ruff, clang-format"
ruff check .
git ls-files '*.h' '*.cc' '*.cpp' | xargs -r clang-format --dry-run --Werror

echo "== C++ core"
core_tests() { # build directory, then options for CMake
  local build="$1"
  shift
  cmake -S cpp/core -B "$build" -G Ninja "$@" >/dev/null
  cmake --build "$build" | tail -1
  ctest --test-dir "$build" -j 2 --output-on-failure --no-tests=error
}
core_tests build/core
core_tests build/core-sanitized -DSEMISPARSE_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo

echo "== Python"
unset PYTHONDONTWRITEBYTECODE # many tests start processes that import torch: what the first one compiles serves all
python -m pytest --durations=20 "$@"
