#!/usr/bin/env python3
"""Packed weights and a converted network that cross from one architecture to another, with their results.

    golden.py make DIRECTORY     needs torch
    golden.py check DIRECTORY    numpy alone; the same results on this machine, the same bytes from packing

tools/arm/test.sh makes them on x86 and checks them on ARM, and the other way round.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from semisparse import runtime

# (weight shape, groups, fraction of single weights removed, fraction of whole kernels removed)
WEIGHTS = {
    "dense": ((16, 8, 3, 3), 1, 0.0, 0.0),
    "unstructured": ((12, 10, 3, 3), 1, 0.7, 0.0),
    "kernels": ((20, 16, 3, 3), 1, 0.0, 0.75),
    "groups": ((12, 4, 5, 3), 3, 0.5, 0.3),
    "depthwise": ((10, 1, 3, 3), 10, 0.4, 0.0),
    "pointwise": ((24, 40, 1, 1), 1, 0.6, 0.0),
}
IMAGE = (1, 3, 32, 64)


def _call(arrays, name: str, groups: int, weight) -> np.ndarray:
    get = {key: arrays[f"{name}.{key}"] for key in ("x", "bias", "mask", "fill")}
    return runtime.conv2d(
        get["x"], weight, get["bias"], 1, 1, 1, groups, mask=get["mask"], fill=get["fill"], activation="silu"
    )


def make(directory: Path) -> None:
    """Write `arrays.npz` and `network.safetensors`."""
    import torch
    from conversions import mask_randomly, randomise
    from detector import Detector

    import semisparse as ss

    rng = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for name, (shape, groups, single, kernels) in WEIGHTS.items():
        weight = rng.standard_normal(shape, dtype=np.float32)
        weight[rng.random(shape) < single] = 0
        weight[rng.random(shape[:2]) < kernels] = 0
        x = rng.standard_normal((2, shape[1] * groups, 11, 13), dtype=np.float32)
        size = (11 + 2 - shape[2] + 1, 13 + 2 - shape[3] + 1)
        arrays |= {
            f"{name}.weight": weight,
            f"{name}.packed": runtime.pack_weight(weight, groups),
            f"{name}.x": x,
            f"{name}.bias": rng.standard_normal(shape[0], dtype=np.float32),
            f"{name}.fill": rng.standard_normal(shape[0], dtype=np.float32),
            f"{name}.mask": rng.random(size) < 0.7,
        }
        arrays[f"{name}.y"] = _call(arrays, name, groups, weight)
    torch.manual_seed(0)
    model = mask_randomly(randomise(Detector()), torch.randn(IMAGE))
    converted = ss.convert(model, torch.randn(2, *IMAGE[1:]))
    ss.save(converted, directory / "network.safetensors")
    arrays["network.x"] = rng.standard_normal(IMAGE, dtype=np.float32)
    with torch.inference_mode():
        arrays["network.y"] = converted(torch.from_numpy(arrays["network.x"])).numpy()
    np.savez(directory / "arrays.npz", **arrays)


def check(directory: Path) -> float:
    """Compare with what this machine computes; returns the largest difference, relative to the largest value.

    Raises:
        AssertionError: other bytes, or a difference beyond float32 rounding.
    """
    arrays, worst = np.load(directory / "arrays.npz"), 0.0

    def compare(found: np.ndarray, expected: np.ndarray, what: str) -> None:
        nonlocal worst
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        assert difference < 2e-5, f"{what} differs by {difference:.2e} of its largest value"
        worst = max(worst, difference)

    for name, (_, groups, _, _) in WEIGHTS.items():
        weight, packed = arrays[f"{name}.weight"], arrays[f"{name}.packed"]
        assert np.array_equal(runtime.pack_weight(weight, groups), packed), (
            f"{name}: packing gives other bytes"
        )
        assert np.array_equal(runtime.unpack_weight(packed), weight), f"{name}: unpacking gives other weights"
        compare(_call(arrays, name, groups, runtime.PackedWeight(packed)), arrays[f"{name}.y"], name)
    network = runtime.load(directory / "network.safetensors")
    for _ in range(2):  # planned at the first call
        compare(network(arrays["network.x"]), arrays["network.y"], "network")
    return worst


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "check"):
        raise SystemExit(__doc__)
    if sys.argv[1] == "make":
        sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("convert", "runtime")]
        make(Path(sys.argv[2]))
    else:
        difference = check(Path(sys.argv[2]))
        machine = f"{runtime.cpu_info()['architecture']}, {runtime.kernel_name()}"
        print(f"{machine}: largest difference {difference:.1e}")
        print("torch imported:", "torch" in sys.modules)
