#!/usr/bin/env bash
# Cross-builds the wheel for 64-bit ARM with the project's own setup.py: the emulated Python drives setuptools, and the
# cross compiler that it starts is a program of this machine. Prints the wheel's path. The world must exist (world.sh).
#   tools/arm/wheel.sh [torch version, or "none" for the numpy runtime alone; default 2.9.1]
set -euo pipefail
. "$(dirname "$0")/paths.sh"
need qemu-aarch64 aarch64-linux-gnu-g++ ninja
lock
torch=${1:-2.9.1}
build="$cache/build-torch-$torch"
# Objects of another checkout may be younger than this one's sources.
[ "$(cat "$build/checkout" 2>/dev/null)" = "$root" ] || rm -rf "$build"
# A copy of the checkout: neither its build directory nor an editable installation is touched. Times are kept and the
# objects stay in $build/objects, so the next build compiles only what has changed.
rm -rf "$build/source" "$build/dist"
mkdir -p "$build/source" "$build/dist" "$build/objects"
echo "$root" >"$build/checkout"
(cd "$root" && git ls-files -z --cached --others --exclude-standard | while IFS= read -rd '' file; do
  [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar -c --null -T - | tar -x -C "$build/source")
ln -s ../objects "$build/source/build"

export CXX=aarch64-linux-gnu-g++ SEMISPARSE_ARCH=aarch64 ARM_CPU=max ARM_PATH="numpy build"
# Python's own headers include glibc's; the cross compiler's must come first.
export CXXFLAGS="-idirafter $cache/root/usr/include -ffile-prefix-map=$cache/=" PYTHONDONTWRITEBYTECODE=1
if [ "$torch" = none ]; then
  export SEMISPARSE_WITHOUT_TORCH=1
else
  export SEMISPARSE_TORCH_DIR="$cache/torch-$torch/torch"
fi
cd "$build/source"
"$here/python.sh" -c 'import setuptools.build_meta as backend; backend.build_wheel("../dist")' >"$build/log" 2>&1 || {
  tail -40 "$build/log" >&2
  exit 1
}
ls "$build"/dist/*.whl
