"""Pictures with what several detectors found in them, side by side."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semisparse._files import replace_atomically
from semisparse.detection import Detections

_COLOURS = ("#d1495b", "#1f6f8b", "#edae49", "#3a7d44", "#7b4ea8", "#e07a2f", "#22a6b3", "#8a5a44")
_GAP, _TITLE = 8, 22
_WIDEST = 480  # of one panel, in pixels


def draw_boxes(
    path: str | os.PathLike, pictures: Sequence[np.ndarray], found: Mapping[str, Sequence[Detections]]
) -> Path:
    """Write a PNG (atomically): one row for each picture, one column for each entry of `found`.

    Args:
        pictures: uint8 (H, W, 3), RGB.
        found: title of the column -> what there is in each picture.
    """
    scale = min(1.0, _WIDEST / max(picture.shape[1] for picture in pictures))
    if max(picture.shape[1] for picture in pictures) < _WIDEST / 2:
        scale = _WIDEST / 2 / max(picture.shape[1] for picture in pictures)
    sizes = [(round(p.shape[1] * scale), round(p.shape[0] * scale)) for p in pictures]
    width = max(w for w, _ in sizes)
    sheet = Image.new(
        "RGB",
        (len(found) * (width + _GAP) + _GAP, _TITLE + sum(h + _GAP for _, h in sizes) + _GAP),
        "white",
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, (title, detections) in enumerate(found.items()):
        left, top = _GAP + column * (width + _GAP), _TITLE + _GAP
        pen.text((left, _GAP), title, fill="#22303c", font=font)
        for picture, size, detected in zip(pictures, sizes, detections, strict=True):
            sheet.paste(_panel(picture, size, scale, detected, font), (left, top))
            top += size[1] + _GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    with replace_atomically(path) as file:
        file.write(buffer.getvalue())
    return Path(path)


def _panel(picture: np.ndarray, size: tuple[int, int], scale: float, found: Detections, font) -> Image.Image:
    panel = Image.fromarray(picture).resize(size)
    pen = ImageDraw.Draw(panel)
    for box, score, index in zip(
        found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
    ):
        colour = _COLOURS[index % len(_COLOURS)]
        x1, y1, x2, y2 = (scale * side for side in box)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=2)
        label = f"{found.names[index]} {score:.2f}"
        text = pen.textbbox((0, 0), label, font=font)
        below = y1 < text[3] + 2
        corner = (x1, y2 if below else y1 - text[3] - 2)
        pen.rectangle((corner[0], corner[1], corner[0] + text[2] + 3, corner[1] + text[3] + 1), fill=colour)
        pen.text((corner[0] + 2, corner[1]), label, fill="white", font=font)
    return panel
