"""Executed instructions and estimated cycles of convolution layers and networks on ARM, without a board.

    python tools/arm/count [--peers torch ncnn onnxruntime] [--layers 64@56 ...] [--network FILE...] [-o FILE]

Runs in the emulated Python (tools/arm/world.sh and wheel.sh make it, this command calls them where needed),
on the emulated Cortex-A76. Instructions are exact and repeatable; cycles are estimates of llvm-mca (see
cycles.py), which takes Debian's LLVM 22 where it can be fetched. Neither knows caches: they compare kernels
and are no times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from cycles import Block, Estimator  # noqa: E402

CACHE = Path(
    os.environ.get("SEMISPARSE_ARM_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semisparse/arm"
)
CORES = ("neoverse-n1", "cortex-a72", "cortex-a55")
TORCH = "2.9.1"
LLVM = "22"
PEERS = {  # what each needs besides numpy: requirements of its wheels
    "torch": [],
    "ncnn": ["ncnn", "tqdm", "portalocker"],
    "onnxruntime": ["onnxruntime", "onnx", "protobuf", "flatbuffers", "ml_dtypes", "typing-extensions"],
}


def patterns(rng: np.random.Generator, filters: int, channels: int, group: int) -> np.ndarray:
    """A 0/1 mask (filters, channels, 3, 3): the centre and 3 neighbours of each kernel, one of 8 shapes, the
    same for `group` filters."""
    neighbours = np.array([i for i in range(9) if i != 4])
    library = np.zeros((8, 9), np.float32)
    library[:, 4] = 1
    for shape in library:
        shape[rng.permutation(neighbours)[:3]] = 1
    chosen = rng.integers(8, size=(filters // group, channels)).repeat(group, axis=0)
    return library[chosen].reshape(filters, channels, 3, 3)


def cases(channels: int, size: int) -> dict[str, dict[str, np.ndarray]]:
    """The schemes of one 3x3 layer: input, weight, column mask and expected output of each."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, channels, size, size), dtype=np.float32)
    weight = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32) * np.float32(0.05)
    every = np.ones((size, size), bool)
    pixels = np.ones(size * size, bool)
    pixels[rng.permutation(size * size)[: round(0.3 * size * size)]] = False
    starts = np.arange(0, size * size, 16)
    runs = np.ones(size * size, bool)
    for start in rng.permutation(starts)[: round(0.3 * len(starts))]:
        runs[start : start + 16] = False
    pixels, runs = pixels.reshape(size, size), runs.reshape(size, size)
    pattern = weight * patterns(rng, channels, channels, 4)
    kept = rng.random((channels // 4, channels)).argsort(axis=1) < round(channels / 3.6)
    eightfold = pattern * kept.repeat(4, axis=0)[:, :, None, None]
    schemes = {
        "dense": (weight, every),
        "columns 0.3": (weight, pixels),
        "columns 0.3, runs of 16": (weight, runs),
        "pattern": (pattern + 0, every),
        "pattern + columns 0.3, runs of 16": (pattern + 0, runs),
        "8x": (eightfold + 0, every),
        "8x + columns 0.3": (eightfold + 0, pixels),
        "8x + columns 0.3, runs of 16": (eightfold + 0, runs),
    }
    return {
        name: {"x": x, "weight": w, "mask": mask, "y": convolve(x, w) * mask}
        for name, (w, mask) in schemes.items()
    }


def convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("ncijhw,ochw->noij", windows, weight, optimize=True)


def run(command: list, **environment: str) -> str:
    result = subprocess.run(
        list(map(str, command)), env=os.environ | environment, text=True, capture_output=True
    )
    if result.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{result.stderr[-3000:]}")
    return result.stdout


def emulate(path: str, arguments: list) -> dict[int, list[Block]]:
    """The marked regions of a run of the driver, by tag."""
    out = CACHE / "count.out"
    plugin = f"{CACHE / 'plugin.so'},out={out}"
    run(
        [HERE.parent / "python.sh", HERE / "driver.py", *arguments],
        ARM_CPU="cortex-a76", ARM_PATH=path, ARM_PLUGIN=plugin, OMP_NUM_THREADS="1",
    )  # fmt: skip
    regions: dict[int, list[Block]] = {}
    with open(out) as file:
        for line in file:
            first, *words = line.split()
            if first == "region":
                blocks = regions.setdefault(int(words[0]), [])
            else:
                blocks.append((int(first), words))
    return regions


def prepare(peers: list[str]) -> None:
    run([HERE.parent / "world.sh"], SEMISPARSE_ARM_TORCH=TORCH)
    site = CACHE / f"site-{TORCH}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    pip += ["--no-compile", "--only-binary=:all:", "--implementation", "cp", "--python-version", "311"]
    if not site.exists():
        wheel = run([HERE.parent / "wheel.sh", TORCH]).split()[-1]
        run([*pip, "--platform", "linux_aarch64", "--target", site, wheel])
    run(["cc", "-O2", "-shared", "-fPIC", "-o", CACHE / "plugin.so", HERE / "plugin.c"])
    platforms = [f"--platform={name}_aarch64" for name in
                 ("manylinux_2_35", "manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27",
                  "manylinux2014", "manylinux_2_17")]  # fmt: skip
    for peer in peers:
        target = CACHE / f"peer-{peer}"
        if PEERS[peer] and not target.exists():
            print(f"== fetching {peer} for ARM", file=sys.stderr)
            run([*pip, *platforms, "--target", target, *PEERS[peer]])


def estimators() -> list[Estimator]:
    """LLVM 22's models where Debian has it, unpacked into the cache; else those of the installed llvm-mca."""
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
            return [Estimator(core) for core in CORES]
    libraries = [root / "usr/lib/x86_64-linux-gnu", bin.parent / "lib"]
    return [Estimator(core, bin, libraries) for core in CORES]


def report(rows: list[dict], name: str, blocks: list[Block], models: list[Estimator]) -> None:
    row = {"name": name, "instructions": sum(runs * len(words) for runs, words in blocks)}
    row |= {model.core: round(model.cycles(blocks)) for model in models}
    rows.append(row)
    numbers = "".join(f"{row[key] / 1e6:14.2f}" for key in ("instructions", *CORES))
    print(f"{name:<58}{numbers}", flush=True)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["torch", "ncnn"])
    parser.add_argument("--layers", nargs="*", default=["64@56"], metavar="CHANNELS@SIZE")
    parser.add_argument("--network", nargs="*", default=[], metavar="FILE", help="of semisparse.save")
    parser.add_argument("--size", type=int, default=224, help="of a network's image, where it is free")
    parser.add_argument("-o", "--output", type=Path, default=Path("count.json"))
    options = parser.parse_args()
    prepare(options.peers)
    models, rows = estimators(), []
    print(f"{'millions':<58}{'instructions':>14}" + "".join(f"{core:>14}" for core in CORES))
    own = f"site-{TORCH} numpy"
    for layer in options.layers:
        schemes = cases(*map(int, layer.split("@")))
        arrays = {
            f"{tag}.{key}": array for tag, case in enumerate(schemes.values()) for key, array in case.items()
        }
        np.savez(CACHE / "cases.npz", count=len(schemes), **arrays)
        paths = {"semisparse": own, **{peer: f"peer-{peer} numpy" for peer in options.peers}}
        if "torch" in paths:
            paths["torch"] = f"torch-{TORCH} torch-dependencies numpy"
        for engine, path in paths.items():
            regions = emulate(path, [engine, CACHE / "cases.npz"])
            for tag, name in enumerate(schemes):
                if tag in regions:
                    report(rows, f"{layer} {engine}, {name}", regions[tag], models)
    if options.network:
        files = [Path(file).resolve() for file in options.network]
        for tag, blocks in emulate(own, ["network", options.size, *files]).items():
            report(rows, files[tag].name, blocks, models)
    options.output.write_text(json.dumps({"unit": "1", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
