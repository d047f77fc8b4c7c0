#!/usr/bin/env bash
# The emulated Python of the arm64 world (tools/arm/world.sh makes it).
#   tools/arm/python.sh [python's arguments]
# Environment:
#   ARM_CPU        core to emulate: cortex-a53, cortex-a72 (default), cortex-a76, neoverse-n1, max
#   ARM_PATH       what is importable: names of folders of the world, separated by spaces, e.g. "numpy torch-2.9.1"
#   ARM_PLUGIN     a qemu plugin with its options
#   PYTHONPATH     goes first
set -euo pipefail
. "$(dirname "$0")/paths.sh"
core=${ARM_CPU:-cortex-a72}
lock shared
target=$("$here/fake_cpu.sh" "$core")
for folder in ${ARM_PATH-numpy tests}; do PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$cache/$folder"; done
plugin=()
[ -z "${ARM_PLUGIN:-}" ] || plugin=(-plugin "$ARM_PLUGIN" -d plugin)
export PYTHONPATH OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec qemu-aarch64 -cpu "$core" -L "$target" "${plugin[@]}" "$target/usr/bin/python$python_version" "$@"
