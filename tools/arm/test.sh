#!/usr/bin/env bash
# The project on emulated ARM cores, from packages to results: builds the arm64 world (cached), cross-builds the wheel
# for each torch, installs it into the emulated Python and runs the tests marked `arm` there: as a Raspberry Pi 4
# (Cortex-A72) with the older torch, and on the newest core that qemu knows with the newer one; then the numpy runtime
# without torch. Packed weights and converted networks cross from x86 to ARM and back.
# Needs an installed semisparse (tools/setup.sh) and, on Debian: apt install qemu-user g++-aarch64-linux-gnu ninja-build
#   tools/arm/test.sh [pytest's arguments]
# Environment: paths.sh, and SEMISPARSE_PYTHON, the Python that has semisparse installed (default .venv/bin/python).
set -euo pipefail
. "$(dirname "$0")/paths.sh"
native=${SEMISPARSE_PYTHON:-$root/${VENV:-.venv}/bin/python}
if ! "$native" -c 'import semisparse.runtime' 2>/dev/null; then
  echo "$native has no working semisparse: run tools/setup.sh test, or set SEMISPARSE_PYTHON" >&2
  exit 1
fi
export PYTHON=$native
# Hypothesis draws a twentieth of the examples: an emulated core is that much slower.
export SEMISPARSE_TEST_SCALE=${SEMISPARSE_TEST_SCALE:-0.05} OMP_NUM_THREADS=2
lock
read -r first second <<<"$torch_versions"
second=${second:-$first}
"$here/world.sh"
golden="$cache/golden"
rm -rf "$golden"
"$native" "$root/tests/arm/golden.py" make "$golden/x86"

install() { # torch version: its wheel, unpacked beside it
  local wheel
  wheel=$("$here/wheel.sh" "$1")
  if [ "$(uname -m)" != aarch64 ]; then # pip itself must refuse it here, in words
    ! "$native" -m pip install -q --dry-run --no-deps "$wheel" >"$cache/refused" 2>&1
    grep -q 'not a supported wheel on this platform' "$cache/refused" || { cat "$cache/refused" >&2; return 1; }
  fi
  rm -rf "$cache/site-$1"
  "$native" -m pip --disable-pip-version-check install -q --no-compile --no-deps --only-binary=:all: \
    --target "$cache/site-$1" --implementation cp --python-version "${python_version/./}" --platform linux_aarch64 "$wheel"
  # Without the sources beside them: what is tested is what was installed.
  rm -rf "$cache/tests-$1"
  mkdir "$cache/tests-$1"
  cp -r "$root/tests" "$root/pytest.ini" "$cache/tests-$1"
}

run() { # torch version, core, pytest's arguments
  cd "$cache/tests-$1"
  # Only the files that have such tests: collecting the others would import what the world lacks.
  local files
  mapfile -t files < <(grep -rl --include='test_*.py' 'pytest.mark.arm' tests | sort)
  ARM_CPU=$2 ARM_PATH="site-$1 torch-$1 torch-dependencies numpy tests" \
    SEMISPARSE_GOLDEN="$golden/x86" SEMISPARSE_GOLDEN_WRITE="$golden/$2" \
    timeout 2400 "$here/python.sh" -m pytest -m arm -q -p no:cacheprovider "${files[@]}" "${@:3}" ||
    { echo "tests on $2: exit status $? (124: they hung)" >&2; return 1; }
}

echo "== the wheel for ARM, torch $first and $second"
install "$first"
[ "$second" = "$first" ] || install "$second"
echo "== Cortex-A72 (Raspberry Pi 4), torch $first; beside it, in $golden/max.log: newest core, torch $second"
run "$second" max "$@" >"$golden/max.log" 2>&1 &
newest=$!
(run "$first" cortex-a72 "$@")
echo "== newest core, torch $second"
wait "$newest" || { cat "$golden/max.log"; exit 1; }
tail -3 "$golden/max.log"
echo "== numpy alone, without torch, on Cortex-A72; then what was made on ARM, on this machine"
ARM_CPU=cortex-a72 ARM_PATH="site-$first numpy" "$here/python.sh" "$root/tests/arm/golden.py" check "$golden/x86"
for core in cortex-a72 max; do "$native" "$root/tests/arm/golden.py" check "$golden/$core"; done
