"""`shapes`: a detection set that is drawn here, so that training needs no download.

Discs, squares and triangles in any colour, a few to a picture, on a noisy, shaded background with lines
across it that belong to no class. The same seed gives the same pictures. Small networks learn it
in minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

NAMES = ("disc", "square", "triangle")
_OVERSAMPLING = 3  # shapes are drawn larger and averaged, for smooth edges
_MAX_OVERLAP = 0.15  # of the smaller box


def write_shapes(
    directory: str | os.PathLike,
    *,
    train: int = 240,
    val: int = 80,
    size: tuple[int, int] = (72, 96),
    seed: int = 0,
) -> Path:
    """Draw the set in YOLO layout; returns its `data.yaml`. What is there already is kept.

    Args:
        directory: made, all at once when it is complete.
        train, val: numbers of pictures.
        size: (height, width) of a picture in pixels, at least 32.

    Raises:
        ValueError: a size below 32 or a split without pictures.
    """
    if min(size) < 32 or min(train, val) < 1:
        raise ValueError(
            f"size {size}, train {train}, val {val}: pictures need 32 pixels a side, and splits a picture"
        )
    from PIL import Image

    directory = Path(directory)
    settings = json.dumps({"train": train, "val": val, "size": list(size), "seed": seed})
    note = directory / "settings.json"
    if note.is_file() and note.read_text() == settings:
        return directory / "data.yaml"
    if directory.exists():
        raise ValueError(f"{directory} exists and is another data set; name another directory or remove it")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        generator = np.random.default_rng(seed)
        for split, count in (("train", train), ("val", val)):
            for folder in ("images", "labels"):
                (temporary / folder / split).mkdir(parents=True)
            for index in range(count):
                picture, labels = draw(generator, size)
                Image.fromarray(picture).save(temporary / "images" / split / f"{index:04}.png")
                lines = (" ".join(map(str, [kind, *np.round(box, 6)])) for kind, box in labels)
                (temporary / "labels" / split / f"{index:04}.txt").write_text("\n".join(lines) + "\n")
        names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
        paths = f"path: {directory.resolve()}\ntrain: images/train\nval: images/val\n"
        (temporary / "data.yaml").write_text(f"{paths}names:\n{names}")
        (temporary / "settings.json").write_text(settings)
        temporary.chmod(0o755)
        os.rename(temporary, directory)
    except OSError:
        if not note.is_file():  # else another process was faster, and drew the same
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory / "data.yaml"


def draw(
    generator: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, list[tuple[int, tuple[float, float, float, float]]]]:
    """One picture, uint8 (H, W, 3), and its labels: (class, (centre x, y, width, height)), in fractions."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    slope = generator.normal(0, 60, (2, 3))
    picture = generator.uniform(40, 215, 3) + slope[0] * (y / height - 0.5)[..., None]
    picture = picture + slope[1] * (x / width - 0.5)[..., None]
    for _ in range(generator.integers(1, 4)):
        angle, offset = generator.uniform(0, np.pi), generator.uniform(0.2, 0.8, 2) * size
        distance = np.abs((y - offset[0]) * np.cos(angle) + (x - offset[1]) * np.sin(angle))
        picture[distance < generator.uniform(0.6, 1.6)] = generator.uniform(0, 255, 3)
    labels: list = []
    taken: list[np.ndarray] = []
    for _ in range(generator.integers(1, 6)):
        kind, colour = int(generator.integers(len(NAMES))), generator.uniform(0, 255, 3)
        radius = generator.uniform(0.09, 0.24) * min(size)
        centre = generator.uniform([radius, radius], [height - radius, width - radius])
        coverage = _coverage(kind, centre, radius, generator.uniform(0, 2 * np.pi), size)
        rows, columns = np.flatnonzero(coverage.any(1)), np.flatnonzero(coverage.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
        contrast = np.abs(colour - picture[coverage > 0.5].mean(0)).max() if (coverage > 0.5).any() else 0
        if contrast < 60 or any(_overlap(box, other) > _MAX_OVERLAP for other in taken):
            continue
        taken.append(box)
        picture += coverage[..., None] * (colour - picture)
        x1, y1, x2, y2 = box / [width, height, width, height]
        labels.append((kind, ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)))
    picture += generator.normal(0, 8, picture.shape)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8), labels


def _coverage(
    kind: int, centre: np.ndarray, radius: float, angle: float, size: tuple[int, int]
) -> np.ndarray:
    """The fraction of each pixel that the shape covers, (H, W)."""
    steps = (np.arange(_OVERSAMPLING) + 0.5) / _OVERSAMPLING
    rows = (np.arange(size[0])[:, None] + steps).ravel() - centre[0]
    columns = (np.arange(size[1])[:, None] + steps).ravel() - centre[1]
    y, x = rows[:, None], columns[None, :]
    if NAMES[kind] == "disc":
        inside = x * x + y * y < radius * radius
    else:  # the sides' normals point in evenly spaced directions
        corners = {"square": 4, "triangle": 3}[NAMES[kind]]
        inside = np.ones((rows.size, columns.size), bool)
        for side in range(corners):
            direction = angle + 2 * np.pi * side / corners
            inside &= x * np.cos(direction) + y * np.sin(direction) < radius * np.cos(np.pi / corners)
    shape = size[0], _OVERSAMPLING, size[1], _OVERSAMPLING
    return inside.reshape(shape).mean((1, 3))


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over the smaller of two boxes (x1, y1, x2, y2)."""
    extent = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    smaller = min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))
    return float(np.prod(np.maximum(extent, 0)) / smaller)
