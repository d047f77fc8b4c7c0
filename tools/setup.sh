#!/usr/bin/env bash
# Make or update the virtual environment and install semisparse into it (editable), extensions built.
# Usage: tools/setup.sh EXTRAS        e.g. tools/setup.sh train,eval
# Environment: VENV (default .venv), PYTHON (default python3), and everything pip reads (PIP_EXTRA_INDEX_URL...).
set -euo pipefail
cd "$(dirname "$0")/.."
extras="$1"
venv="${VENV:-.venv}"
python="${PYTHON:-python3}"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
  echo "semisparse needs Python 3.10 or newer; set PYTHON to one (this is $("$python" --version 2>&1))" >&2
  exit 1
fi
if ! command -v "${CXX:-c++}" >/dev/null; then
  echo "a C++17 compiler is needed: install g++ or clang++ (Debian, Ubuntu: apt install g++), or set CXX" >&2
  exit 1
fi
if [ ! -x "$venv/bin/python" ]; then
  echo "== making $venv"
  "$python" -m venv "$venv" || {
    echo "this Python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)" >&2
    exit 1
  }
fi
quiet=()
[ -t 1 ] || quiet=(-q) # progress for people, silence for logs
install=("$venv/bin/python" -m pip --disable-pip-version-check install "${quiet[@]}" --no-compile -c constraints.txt)
echo "== installing torch and the build tools (versions of constraints.txt)"
# The extension is built against the torch that it will run with, so no isolated build environment.
"${install[@]}" torch numpy setuptools wheel ninja pybind11
echo "== building and installing semisparse[$extras]"
"${install[@]}" --no-build-isolation -e ".[$extras]"
