#!/usr/bin/env bash
# Builds the arm64 world that the emulated tests run in, out of packages: a root directory with glibc and CPython from
# Debian's arm64 archive, numpy, pytest and torch from the package index. Nothing is installed on this machine, no root
# rights are needed; what exists already is kept. Needs apt-get and dpkg (Debian, Ubuntu).
#   tools/arm/world.sh             see paths.sh for the environment
set -euo pipefail
. "$(dirname "$0")/paths.sh"
need qemu-aarch64 aarch64-linux-gnu-gcc apt-get dpkg-deb flock
lock

once() { # name, command...: run it unless it has succeeded before
  local mark="$cache/.done-$1"
  [ -e "$mark" ] && return
  echo "== arm64 world: $1"
  "${@:2}"
  touch "$mark"
}

# A private apt directory whose architecture is arm64; the machine's own package state is not touched.
system() {
  local apt="$cache/apt" keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$apt"/{etc/{sources.list.d,preferences.d,apt.conf.d},state/lists/partial,cache/archives/partial,log} "$cache/root"
  if [ ! -e "$keyring" ]; then
    echo "missing $keyring: apt install debian-archive-keyring" >&2
    return 1
  fi
  printf 'deb [signed-by=%s] %s %s main\n' \
    "$keyring" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" "$debian_suite" >"$apt/etc/sources.list"
  : >"$apt/state/status"
  local options=(-qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o "Dir::Etc=$apt/etc"
    -o Dir::Etc::sourcelist=sources.list -o Dir::Etc::sourceparts=sources.list.d -o "Dir::State=$apt/state"
    -o "Dir::State::status=$apt/state/status" -o "Dir::Cache=$apt/cache" -o "Dir::Log=$apt/log"
    -o APT::Sandbox::User=root -o Debug::NoLocking=1)
  # Kept when apt runs inside a proxy or mirror set-up of this machine.
  [ -d /etc/apt/apt.conf.d ] && cp /etc/apt/apt.conf.d/* "$apt/etc/apt.conf.d/" 2>/dev/null || true
  local python="python$python_version"
  local packages=(libc6 libc6-dev libstdc++6 libgcc-s1 libgomp1 "$python" "$python-minimal" "lib$python" "lib$python-dev"
    "lib$python-stdlib" "lib$python-minimal" zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1
    libdb5.3 libncursesw6 libtinfo6 libreadline8 libcrypt1 libnsl2 libtirpc3)
  apt-get "${options[@]}" update
  (cd "$apt/cache/archives" && rm -f ./*.deb && apt-get "${options[@]}" download "${packages[@]}")
  for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$cache/root"; done
  rm -rf "$apt"
}

wheels() { # target directory, requirements...
  local target="$cache/$1" platforms=()
  rm -rf "$target"
  for platform in manylinux_2_28 manylinux_2_27 manylinux2014 manylinux_2_17; do
    platforms+=(--platform "${platform}_aarch64")
  done
  "$host_python" -m pip --disable-pip-version-check install -q --no-compile --no-deps --only-binary=:all: \
    --implementation cp --python-version "${python_version/./}" "${platforms[@]}" --target "$target" "${@:2}"
}

pinned() { grep -E "^$1==" "$root/constraints.txt"; } # the version that the project is tested with elsewhere

torch() {
  wheels "torch-$1" "torch==$1"
  if [ -e "$cache/torch-$1/torch/lib/libtorch_cuda.so" ]; then
    "$host_python" "$here/stub_cuda.py" "$cache/torch-$1/torch" "$cache/root"
  fi
}

once system system
once numpy wheels numpy "numpy<3" "$(pinned safetensors)"
once build-tools wheels build "$(pinned setuptools)" wheel packaging "$(pinned pybind11)"
once tests wheels tests "$(pinned pytest)" iniconfig pluggy packaging pygments "$(pinned hypothesis)" sortedcontainers
once torch-dependencies wheels torch-dependencies typing-extensions filelock "sympy>=1.13.3" "mpmath<1.4" networkx jinja2 \
  markupsafe fsspec "$(pinned setuptools)"
for version in $torch_versions; do once "torch-$version" torch "$version"; done
