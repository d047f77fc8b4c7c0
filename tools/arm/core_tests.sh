#!/usr/bin/env bash
# The C++ core's tests on emulated ARM cores: cross-built once, its kernels checked for spilled registers, run as a
# Raspberry Pi 4 (Cortex-A72, ARMv8.0) and a Raspberry Pi 5 (Cortex-A76). Needs (Debian): g++-aarch64-linux-gnu qemu-user cmake ninja-build doctest-dev
#   tools/arm/core_tests.sh [build directory]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build/core-aarch64}
# The compiler's assembly, with its comments, stays beside the objects: check_spills.py reads it.
cmake -S "$root/cpp/core" -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$root/tools/arm/toolchain.cmake" \
  -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_CXX_FLAGS="-save-temps=obj -fverbose-asm" >/dev/null
cmake --build "$build"
echo "== registers of the NEON kernels"
"$root/tools/arm/check_spills.py" "$build"
find "$build" -name 'neon*.o' -exec env NM=aarch64-linux-gnu-nm sh "$root/cpp/core/testing/isa_symbols.sh" {} +
run() { # core; half an hour is several times what it takes
  timeout 1800 qemu-aarch64 -cpu "$1" -L /usr/aarch64-linux-gnu "$build/core_tests" ||
    { echo "core tests on $1: exit status $? (124: they hung)" >&2; return 1; }
}
echo "== core tests on cortex-a72; beside it, in $build/cortex-a76.log: cortex-a76"
run cortex-a76 >"$build/cortex-a76.log" 2>&1 &
other=$!
run cortex-a72
echo "== core tests on cortex-a76"
wait "$other" || { cat "$build/cortex-a76.log"; exit 1; }
tail -4 "$build/cortex-a76.log"
