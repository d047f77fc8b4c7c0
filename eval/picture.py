"""The picture of an evaluation: which columns each layer computes, and accuracy against latency."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

# The object interface of matplotlib: no global state, and no display is needed.
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from semisparse._files import replace_atomically

INK, MUTED, GRID = "#22303c", "#6b7a88", "#e3e8ec"
COMPUTED, REMOVED = "#1f6f8b", "#f4efe6"
DENSE, SPARSE = "#8a97a3", "#d1495b"
MAX_MASKS = 32


@dataclass(frozen=True)
class Point:
    """One model on one engine: latency in ms (median and the 10th-90th percentile), accuracy in percent."""

    label: str
    sparse: bool
    latency: float
    low: float
    high: float
    accuracy: float


def draw(
    path: str | os.PathLike,
    title: str,
    masks: Mapping[str, torch.Tensor],
    points: Sequence[Point],
    subtitle: str = "",
    latency_label: str = "latency, ms",
    accuracy_label: str = "top-1 accuracy, %",
) -> Path:
    """Write a PNG (atomically): masks as small multiples on the left, the scatter plot on the right.

    Args:
        masks: layer name -> bool (OH, OW), True = computed; at most 32 are drawn. May be empty.
        points: dense and sparse variants; speed-ups are drawn from the first dense point to the sparse ones.
    """
    shown = dict(list(masks.items())[:MAX_MASKS])
    columns = 4 if len(shown) <= 20 else 6
    rows = -(-len(shown) // columns)
    height = max(5.2, 1.35 * rows + 1.3)
    mask_width = 1.2 * columns if shown else 0
    figure = Figure(figsize=(mask_width + 6.8, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.35 / (mask_width + 6.8), 1 - 0.38 / height, title, size=15, weight="bold", color=INK)
    if subtitle:
        figure.text(0.35 / (mask_width + 6.8), 1 - 0.66 / height, subtitle, size=9.5, color=MUTED)
    top = 1 - 1.25 / height
    if shown:
        left, right = figure.subfigures(1, 2, width_ratios=[mask_width, 6.8], wspace=0)
        _draw_masks(left, shown, rows, columns, top, len(masks) - len(shown))
    else:
        right = figure
    _draw_points(right, points, top, latency_label, accuracy_label)
    with replace_atomically(Path(path)) as file:
        figure.savefig(file, dpi=160, format="png")
    return Path(path)


def _draw_masks(
    figure, masks: Mapping[str, torch.Tensor], rows: int, columns: int, top: float, left_out: int
):
    colours = ListedColormap([REMOVED, COMPUTED])
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    figure.subplots_adjust(left=0.07, right=0.98, top=top, bottom=0.07, hspace=0.42, wspace=0.16)
    for axis, (name, mask) in zip(axes, masks.items(), strict=False):
        removed = 1 - mask.float().mean().item()
        axis.imshow(mask.cpu().numpy(), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(
            f"{name}\n{mask.shape[0]}×{mask.shape[1]}, −{100 * removed:.0f}%", size=6.5, color=INK, pad=3
        )
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color=GRID, linewidth=0.8)
    for axis in axes[len(masks) :]:
        axis.axis("off")
    note = f" ({left_out} more layers not shown)" if left_out else ""
    figure.text(0.07, 0.02, "■", size=9, color=COMPUTED, ha="left")
    figure.text(0.07, 0.02, f"     columns computed, the rest is skipped{note}", size=8.5, color=MUTED)


def _draw_points(figure, points: Sequence[Point], top: float, latency_label: str, accuracy_label: str):
    axis = figure.subplots()
    figure.subplots_adjust(left=0.13, right=0.96, top=top, bottom=0.13)
    for point in points:
        colour = SPARSE if point.sparse else DENSE
        axis.errorbar(
            point.latency,
            point.accuracy,
            xerr=[[max(point.latency - point.low, 0)], [max(point.high - point.latency, 0)]],
            fmt="o" if point.sparse else "s",
            ms=9,
            color=colour,
            ecolor=colour,
            elinewidth=1.2,
            capsize=0,
            markeredgecolor="white",
            markeredgewidth=1.2,
            zorder=3,
        )
    span_x = max(p.high for p in points)
    values = [p.accuracy for p in points]
    spread = max(max(values) - min(values), 1.0)
    axis.set_xlim(0, 1.12 * span_x)
    axis.set_ylim(min(values) - 0.55 * spread, min(max(values) + 0.55 * spread, 100 + 0.3 * spread))
    _label(axis, points)
    axis.set_xlabel(latency_label, size=10, color=INK)
    axis.set_ylabel(accuracy_label, size=10, color=INK)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(colors=MUTED, labelsize=9)
    axis.set_title("Accuracy against latency", loc="left", size=10.5, color=INK, weight="bold")


def _label(axis, points: Sequence[Point]) -> None:
    """Write each label above or below its point, where it meets no marker and no earlier label."""
    figure = axis.get_figure(root=True)
    frame = axis.get_window_extent()
    taken = [
        Bbox.from_bounds(x - 9, y - 9, 18, 18)
        for x, y in axis.transData.transform([(point.latency, point.accuracy) for point in points])
    ]
    for point in sorted(points, key=lambda p: p.latency):
        text = axis.annotate(
            f"{point.label}, {point.latency:.2f} ms",
            (point.latency, point.accuracy),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            size=8.5,
            color=SPARSE if point.sparse else INK,
            zorder=4,
        )
        for dy in (11, -19, 24, -32, 37, -45, 50):
            text.set_position((0, dy))
            box = text.get_window_extent()
            shift = min(0, frame.x1 - box.x1) + max(0, frame.x0 + 5 - box.x0)  # stay inside the frame
            text.set_position((shift * 72 / figure.dpi, dy))
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
