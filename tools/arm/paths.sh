# Sourced by the other scripts here: where the arm64 world lies, and which versions it holds.
#   SEMISPARSE_ARM_CACHE   directory of the world; default ~/.cache/semisparse/arm (about 2.5 GB)
#   PYTHON                 a Python 3 with pip and venv of this machine, for downloading; default python3
cache=${SEMISPARSE_ARM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/semisparse/arm}
host_python=${PYTHON:-python3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# Debian 12's Python, whatever the machine has: what the emulated interpreter is.
python_version=3.11
debian_suite=bookworm
# The newest torch whose aarch64 wheel is for CPUs alone and runs on ARMv8.0 (Raspberry Pi 4), and the one that this
# project is developed with, whose wheel asks for CUDA libraries (stub_cuda.py).
torch_versions=${SEMISPARSE_ARM_TORCH:-2.9.1 2.13.0}

# One run at a time changes the world; a second one waits. Whoever holds the lock says so to the scripts that it
# starts, and these keep it as long as one of them lives (they inherit the open file).
lock() { # shared, for programs that only run in the world; default: alone
  [ "${SEMISPARSE_ARM_LOCKED:-}" != "$cache" ] || return 0
  local mode=--exclusive
  [ "${1:-}" != shared ] || mode=--shared
  mkdir -p "$cache"
  exec 9>>"$cache/.lock"
  if ! flock --nonblock "$mode" 9; then
    echo "waiting for another run that uses $cache" >&2
    flock "$mode" 9
  fi
  export SEMISPARSE_ARM_LOCKED=$cache
}

need() { # commands; says which Debian packages bring them
  local missing=()
  for command in "$@"; do command -v "$command" >/dev/null || missing+=("$command"); done
  [ "${#missing[@]}" = 0 ] && return
  echo "missing: ${missing[*]}. On Debian or Ubuntu: apt install qemu-user g++-aarch64-linux-gnu ninja-build" >&2
  return 1
}
