"""What an evaluation found: rows of accuracy and latency, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from semisparse._files import replace_atomically
from semisparse._table import text_table


@dataclass
class Row:
    """One line of the result: a network on an engine. Times in ms, accuracies in percent, ratios removed."""

    network: str
    engine: str
    macs_removed: float  # fraction of the network's multiply-accumulates
    top1: float
    top5: float
    latency: float = 0.0
    p10: float = 0.0
    p90: float = 0.0
    speedup_torch: float | None = None  # over the dense network in torch
    speedup_dense: float | None = None  # over the dense network in semisparse

    @property
    def sparse(self) -> bool:
        return self.macs_removed > 0

    @property
    def key(self) -> str:
        return f"{self.network} | {self.engine}"


@dataclass
class Result:
    """What the command measured.

    Attributes:
        differences: by network, the largest |converted - trained| score over the largest |score|.
        missing_engines: by name, why it was not compared with.
        masks: column masks of the first sparse network, by layer.
        conditions: data set, image size, threads...
        machine: as `semisparse info` shows it.
    """

    rows: list[Row]
    differences: dict[str, float]
    missing_engines: dict[str, str]
    masks: dict[str, torch.Tensor]
    conditions: dict
    machine: dict[str, str]

    def table(self) -> str:
        titles = "network|engine|MACs|top-1 %|top-5 %|latency ms|p10-p90|x torch|x own dense".split("|")
        return text_table([titles, *map(_cells, self.rows)], left=3)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "conditions": self.conditions,
            "machine": self.machine,
            "rows": [asdict(row) for row in self.rows],
            "converted_difference": self.differences,
            "missing_engines": self.missing_engines,
        }


def write(result: Result, directory: Path) -> list[Path]:
    """Write eval.json and eval.png into `directory` (made if missing) and return their paths."""
    from semisparse.eval.picture import Point, draw

    directory.mkdir(parents=True, exist_ok=True)
    with replace_atomically(directory / "eval.json") as file:
        file.write(json.dumps(result.as_dict(), indent=1).encode())
    points = [Point(_label(row), row.sparse, row.latency, row.p10, row.p90, row.top1) for row in result.rows]
    where = result.conditions
    threads = "1 thread" if where["threads"] == 1 else f"{where['threads']} threads"
    machine = f"{result.machine['cpu name']}, {result.machine['kernels']}"
    draw(
        directory / "eval.png",
        f"{where['model']} on {where['data']}, dense against sparse",
        result.masks,
        points,
        subtitle=f"{where['size']} px, batch 1, {threads}, {machine}",
        latency_label="median latency, ms (bars: 10th to 90th percentile)",
    )
    return [directory / "eval.json", directory / "eval.png"]


def _label(row: Row) -> str:
    return row.network if row.sparse else f"{row.network}, {row.engine}"


def _cells(row: Row) -> list[str]:
    return [
        row.network,
        row.engine,
        f"-{100 * row.macs_removed:.1f}%" if row.macs_removed else "all",
        f"{row.top1:.2f}",
        f"{row.top5:.2f}",
        f"{row.latency:.3f}",
        f"{row.p10:.3f}-{row.p90:.3f}",
        *("" if x is None else f"{x:.2f}" for x in (row.speedup_torch, row.speedup_dense)),
    ]
