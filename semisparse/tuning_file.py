"""What tuning found, and the file that it lies in beside the model: `model.tuning.json` for
`model.safetensors`, with one entry for each processor and number of threads. Free of torch, for both the
operators and the numpy runtime follow it; `semisparse.tuning` measures it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from semisparse import _core
from semisparse._files import replace_atomically
from semisparse._table import text_table

__all__ = ["ALGORITHMS", "LayerTuning", "Tuning", "machine", "read", "tuning_path", "write"]

ALGORITHMS = ("im2col", "direct", "winograd4", "winograd2", "depthwise")
FORMAT, VERSION = "semisparse-tuning", 1


@dataclass(frozen=True)
class LayerTuning:
    """What was measured of one layer.

    Attributes:
        layer: its name.
        checksum: of its packed weight, which is how it is found again (`TensorSpec.crc32` of the file).
        input_size: (height, width) of its input.
        default: the algorithm that runs without tuning.
        algorithm: the one to run.
        ms: milliseconds inside the network, by algorithm.
    """

    layer: str
    checksum: int
    input_size: tuple[int, int]
    default: str
    algorithm: str
    ms: dict[str, float]


@dataclass(frozen=True)
class Tuning:
    """The result for one machine; `str()` is a table.

    Attributes:
        machine: as `machine()` names it.
        threads: with how many threads.
        layers: the packed convolutions that have a choice.
        ms_default, ms: of the whole network, before and after, measured together.
    """

    machine: str
    threads: int
    layers: tuple[LayerTuning, ...]
    ms_default: float
    ms: float

    @property
    def gain(self) -> float:
        """How many times faster the tuned network is."""
        return self.ms_default / self.ms

    def rows(self) -> list[list[str]]:
        """The table, header first."""
        rows = [["layer", "input", "default", "tuned", *(f"ms {name}" for name in ALGORITHMS)]]
        for layer in self.layers:
            size = "x".join(map(str, layer.input_size))
            times = [f"{layer.ms[name]:.3f}" if name in layer.ms else "-" for name in ALGORITHMS]
            rows.append([layer.layer, size, layer.default, layer.algorithm, *times])
        return rows

    def summary(self) -> str:
        """One line about the whole."""
        changed = sum(layer.algorithm != layer.default for layer in self.layers)
        return (
            f"{changed} of {len(self.layers)} layers changed: {self.ms_default:.3f} -> {self.ms:.3f} ms "
            f"({self.gain:.2f}x) on {self.threads} thread(s) of {self.machine}"
        )

    def __str__(self) -> str:
        return f"{text_table(self.rows(), left=TEXT_COLUMNS)}\n{self.summary()}"


TEXT_COLUMNS = 4  # of the table


def machine() -> str:
    """The processor and the kernels in use: what a tuning belongs to."""
    cpu = _core.cpu_info()
    caches = f"{cpu['l1_bytes'] // 1024}K+{cpu['l2_bytes'] // 1024}K"
    return " | ".join([cpu["name"] or cpu["architecture"], _core.kernel_name(), caches])


def tuning_path(model: str | os.PathLike) -> Path:
    """Where the tuning of a model file lies: `model.tuning.json` beside `model.safetensors`."""
    return Path(model).with_suffix(".tuning.json")


def write(path: str | os.PathLike, tuning: Tuning) -> None:
    """Store a tuning beside the model file `path`, atomically; entries of other machines are kept."""
    target = tuning_path(path)
    entries = [t for t in _entries(target) if (t.machine, t.threads) != (tuning.machine, tuning.threads)]
    tunings = [dataclasses.asdict(entry) for entry in (*entries, tuning)]
    document = {"format": FORMAT, "version": VERSION, "tunings": tunings}
    with replace_atomically(target) as file:
        file.write(json.dumps(document, indent=1).encode())


def read(path: str | os.PathLike, threads: int) -> Tuning | None:
    """The tuning of the model file `path` for this machine, with the number of threads nearest to `threads`;
    None if there is none.

    Raises:
        ValueError: the file beside the model is damaged, or of a newer version.
    """
    here = machine()
    found = [tuning for tuning in _entries(tuning_path(path)) if tuning.machine == here]
    return min(found, key=lambda tuning: abs(tuning.threads - threads), default=None)


def _entries(path: Path) -> list[Tuning]:
    if not path.exists():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise ValueError(f"format {document['format']!r}, version {document['version']!r}")
        return [_tuning(entry) for entry in document["tunings"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a tuning that this version of semisparse wrote ({error}); delete it, or run "
            "semisparse tune again after that"
        ) from error


def _tuning(entry: dict) -> Tuning:
    layers = []
    for item in entry["layers"]:
        layer = LayerTuning(**item | {"input_size": tuple(map(int, item["input_size"]))})
        for name in (layer.default, layer.algorithm):
            if name not in ALGORITHMS:
                raise ValueError(f"unknown algorithm {name!r}")
        if len(layer.input_size) != 2 or type(layer.checksum) is not int:
            raise ValueError(f"input_size {layer.input_size!r}, checksum {layer.checksum!r}")
        layers.append(layer)
    return Tuning(
        str(entry["machine"]),
        int(entry["threads"]),
        tuple(layers),
        float(entry["ms_default"]),
        float(entry["ms"]),
    )
