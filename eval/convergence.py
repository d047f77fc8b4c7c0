"""The picture of ADMM: how the weights approached their structure, from the log of a training run.

python -m semisparse.eval.convergence RUN...    writes convergence.png into each run directory
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

# The object interface of matplotlib: no global state, and no display is needed.
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from semisparse._files import replace_atomically
from semisparse.eval.picture import COMPUTED, GRID, INK, MUTED, SPARSE

LABELS = {
    "residual": "scheme: |W − Z| / |W|",
    "connectivity_residual": "kernels: |W − Y| / |W|",
    "changed": "kernels that changed pattern",
    "connectivity_changed": "kernels that went or came back",
}
COLOURS = {
    "residual": SPARSE,
    "changed": SPARSE,
    "connectivity_residual": COMPUTED,
    "connectivity_changed": COMPUTED,
}


def updates(history: Sequence[dict]) -> list[dict]:
    """ADMM's rows (see `semisparse.train.weights.admm`) of a training log, one dict an epoch."""
    return [row for epoch in history for row in epoch.get("methods", ()) if "residual" in row]


def draw(path: str | os.PathLike, title: str, rows: Sequence[dict]) -> Path:
    """Write a PNG (atomically): primal residuals above, shares of kernels that changed below, by step.

    Raises ValueError if there are no rows.
    """
    if not rows:
        raise ValueError(
            "there is nothing to draw: the log has no ADMM updates; train with a recipe whose method is admm"
        )
    figure = Figure(figsize=(7.2, 5.6), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.11, 0.945, title, size=13, weight="bold", color=INK)
    first, last = rows[0], rows[-1]
    span = f"steps {first['step']} to {last['step']}, rho {first['rho']:.2g} to {last['rho']:.2g}"
    figure.text(0.11, 0.905, f"{len(rows)} updates, {span}", size=9, color=MUTED)
    above, below = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.11, right=0.97, top=0.86, bottom=0.1, hspace=0.16)
    _lines(above, rows, ("residual", "connectivity_residual"), "primal residual")
    # At the first update there is nothing to compare with.
    _lines(below, rows[1:] or rows, ("changed", "connectivity_changed"), "% of kernels", scale=100)
    below.set_xlabel("optimiser step", size=9.5, color=INK)
    with replace_atomically(Path(path)) as file:
        figure.savefig(file, dpi=150, format="png")
    return Path(path)


def _lines(axis, rows: Sequence[dict], keys: Sequence[str], label: str, scale: float = 1.0) -> None:
    for key in keys:
        points = [(row["step"], scale * row[key]) for row in rows if key in row]
        if points:
            axis.plot(*zip(*points, strict=True), color=COLOURS[key], lw=1.8, label=LABELS[key])
    axis.set_ylim(bottom=0)
    axis.set_ylabel(label, size=9.5, color=INK)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(colors=MUTED, labelsize=8.5)
    axis.legend(frameon=False, fontsize=8.5, labelcolor=INK)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m semisparse.eval.convergence", description=__doc__)
    parser.add_argument("run", nargs="+", help="a directory of semisparse train")
    for run in parser.parse_args(argv).run:
        log = Path(run) / "log.jsonl"
        if not log.is_file():
            raise ValueError(f"{str(log)!r} does not exist; give a directory that semisparse train wrote")
        history = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        print(f"wrote {draw(Path(run) / 'convergence.png', Path(run).resolve().name, updates(history))}")


if __name__ == "__main__":
    main()
