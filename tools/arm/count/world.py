"""The arm64 world that is counted in: this checkout's wheel, the other engines', the plugin, LLVM."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cycles import Estimator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CACHE = Path(
    os.environ.get("SEMISPARSE_ARM_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semisparse/arm"
)
CORES = ("neoverse-n1", "cortex-a72", "cortex-a55")  # llvm-mca's names; the first stands for the Cortex-A76
HALF_CORES = ("neoverse-n1", "cortex-a55")  # those with arithmetic in half precision
EMULATED = "cortex-a76"
TORCH = "2.9.1"
LLVM = "22"
# Each engine's wheels; the versions are those of constraints.txt, with which it is timed elsewhere.
WHEELS = {
    "torch": (),
    "onnxruntime": ("onnxruntime", "flatbuffers", "protobuf"),
    "ncnn": ("ncnn", "tqdm", "portalocker"),
    "mnn": ("mnn",),
    "openvino": ("openvino", "openvino-telemetry"),
}
PLATFORMS = ("manylinux_2_35", "manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27",
             "manylinux2014", "manylinux_2_17")  # fmt: skip


def must(command: list, **environment: str) -> str:
    """The output of a program; this one ends if it fails."""
    result = subprocess.run(
        list(map(str, command)),
        env=os.environ | environment, text=True, capture_output=True, close_fds=False,
    )  # fmt: skip
    if result.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{(result.stderr or result.stdout)[-3000:]}")
    return result.stdout


class Lock:
    """That of paths.sh: held alone while the world is changed, then beside others that only run in it."""

    def __init__(self):
        CACHE.mkdir(parents=True, exist_ok=True)
        self._file = open(CACHE / ".lock", "a")
        os.set_inheritable(self._file.fileno(), True)  # held as long as a program that was started here lives
        if os.environ.get("SEMISPARSE_ARM_LOCKED") == str(CACHE):
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run that uses {CACHE}", file=sys.stderr)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        os.environ["SEMISPARSE_ARM_LOCKED"] = str(CACHE)  # for the scripts that are called

    def share(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_SH)


def pinned(name: str) -> str:
    found = re.search(rf"^{re.escape(name)}==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return found.group(0) if found else name


def prepare(engines: list[str], half: bool = False) -> dict[str, str]:
    """Build and fetch what `engines` need, ours with torch if in half precision. Returns what tells each
    one's versions apart."""
    must([HERE.parent / "world.sh"], SEMISPARSE_ARM_TORCH=TORCH, PYTHON=sys.executable)
    must(["cc", "-O2", "-shared", "-fPIC", "-o", CACHE / "plugin.so", HERE / "plugin.c"])
    return {engine: _own(half) if engine == "semisparse" else _peer(engine) for engine in engines}


def own_site(half: bool) -> Path:
    """Where our own wheel is unpacked."""
    return CACHE / ("site-count-torch" if half else "site-count")


def path(engine: str, half: bool = False) -> str:
    """The folders of the world that the engine's Python imports from."""
    if engine == "semisparse":
        return f"{own_site(half).name} " + (path("torch") if half else "numpy")
    return f"torch-{TORCH} torch-dependencies numpy" if engine == "torch" else f"peer-{engine} numpy"


def _install(target: Path, platforms: list[str], requirements: list) -> None:
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    command += ["--no-compile", "--only-binary=:all:", "--implementation", "cp", "--python-version", "311"]
    must([*command, *[f"--platform={name}" for name in platforms], "--target", target, *requirements])


def _own(half: bool) -> str:
    wheel = must([HERE.parent / "wheel.sh", TORCH if half else "none"]).split()[-1]
    site = own_site(half)
    _install(site, ["linux_aarch64"], [wheel])
    digest = hashlib.sha256()
    for file in sorted(site.glob("semisparse/**/*")):
        if file.suffix in (".py", ".so"):
            digest.update(file.relative_to(site).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _peer(engine: str) -> str:
    requirements = [pinned(name) for name in WHEELS[engine]]
    if not requirements:
        return f"torch=={TORCH}"
    target = CACHE / f"peer-{engine}"
    version = target / "version"
    if not version.exists() or version.read_text() != requirements[0]:
        print(f"== fetching {requirements[0]} for ARM", file=sys.stderr)
        _install(target, [f"{name}_aarch64" for name in PLATFORMS], requirements)
        version.write_text(requirements[0])
    return requirements[0]


def estimators(half: bool = False) -> list[Estimator]:
    """LLVM 22's models where Debian has it, unpacked into the cache; else those of the installed llvm-mca."""
    cores = HALF_CORES if half else CORES
    root = CACHE / f"llvm-{LLVM}"
    bin = root / f"usr/lib/llvm-{LLVM}/bin"
    if not bin.exists():
        root.mkdir(exist_ok=True)
        packages = [f"llvm-{LLVM}", f"libllvm{LLVM}", "libz3-4", "libpfm4", "libzstd1", "libedit2", "libxml2"]
        done = subprocess.run(["apt-get", "download", "-qq", *packages], cwd=root, capture_output=True)
        for package in root.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
            package.unlink()
        if done.returncode != 0 or not bin.exists():
            print(f"LLVM {LLVM} cannot be fetched; using the installed llvm-mca", file=sys.stderr)
            return [Estimator(core, half=half) for core in cores]
    libraries = [root / "usr/lib/x86_64-linux-gnu", bin.parent / "lib"]
    return [Estimator(core, bin, libraries, half) for core in cores]
