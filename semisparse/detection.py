"""Running converted detectors on pictures: resizing, network, non-maximum suppression. Without Ultralytics:

    detector = Detector("model.safetensors")
    found = detector(picture)                 # uint8 (H, W, 3), RGB
    for box, score, index in zip(found.boxes, found.scores, found.classes):
        ...

The conventions are those of the YOLO family, so that boxes agree with what Ultralytics computes: the picture
is scaled to fit the network's size, without changing its proportions, and centred on grey.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semisparse import io
from semisparse.sized import SizedModel

__all__ = ["Detections", "Detector", "Placement", "check_detector", "letterbox", "suppress"]

GREY = 114 / 255
# Moves boxes of different classes apart by more than any picture is wide: one pass suppresses all classes.
_CLASS_OFFSET = 8192.0
_MAX_CANDIDATES = 30_000


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, by decreasing score.

    Attributes:
        boxes: float32 (N, 4), corners (x1, y1, x2, y2) in pixels of the picture.
        scores: float32 (N,), in [0, 1].
        classes: int64 (N,), indices into `names`.
        names: of the detector's classes.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Placement:
    """Where `letterbox` put a picture: network coordinates = `scale` x its coordinates + (left, top)."""

    scale: float
    left: int
    top: int
    height: int  # of the picture
    width: int


def check_detector(network: Any) -> None:
    """Raises ValueError unless `network` is a converted detector of three-channel pictures."""
    info = network.info if isinstance(network, SizedModel) else {}
    names, end2end, stride = info.get("names"), info.get("end2end"), info.get("stride")
    good = (
        info.get("task") == "detect"
        and isinstance(names, list)
        and names
        and all(isinstance(name, str) for name in names)
        and isinstance(end2end, bool)
        and type(stride) is int
        and stride >= 1
    )
    if not good:
        raise ValueError(
            f"this {type(network).__name__} is no converted detector (its file says nothing about classes); "
            "convert one with semisparse.train.integrations.ultralytics.convert, or `semisparse convert`"
        )


def letterbox(picture: Tensor, size: tuple[int, int]) -> tuple[Tensor, Placement]:
    """Scale a picture to fit `size` (bilinear, proportions kept), centred on grey.

    Args:
        picture: uint8 (H, W, 3).
        size: (height, width).

    Returns:
        float32 (1, 3, height, width) in [0, 1], and where the picture is in it.
    """
    height, width = picture.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = max(round(height * scale), 1), max(round(width * scale), 1)
    top, left = (round((outer - part) / 2 - 0.1) for outer, part in zip(size, inner, strict=True))
    image = picture.permute(2, 0, 1)[None].float() / 255
    if inner != (height, width):
        image = F.interpolate(image, inner, mode="bilinear", align_corners=False)
    padding = (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top)
    return F.pad(image, padding, value=GREY), Placement(scale, left, top, height, width)


def suppress(
    output: Tensor,
    *,
    end2end: bool = False,
    confidence: float = 0.25,
    iou: float = 0.7,
    max_boxes: int = 300,
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of one picture from the network's output, by decreasing score.

    Args:
        output: (4 + classes, boxes) with centre, width, height, and a score per class; or, `end2end`,
            (boxes, 6) with corners, score and class, which need no suppression.
        confidence: boxes with lower scores are dropped. Each box counts for its best class only.
        iou: of two boxes of one class that overlap more than this, the better stays.
        max_boxes: at most so many.

    Returns:
        corners float32 (N, 4) in the network's pixels, scores (N,), classes int64 (N,).
    """
    if end2end:
        boxes, scores, classes = output[:, :4], output[:, 4], output[:, 5].long()
        keep = (scores > confidence).nonzero().flatten()
        keep = keep[scores[keep].argsort(descending=True, stable=True)][:max_boxes]
        return boxes[keep], scores[keep], classes[keep]
    scores, classes = output[4:].max(0)
    candidates = (scores > confidence).nonzero().flatten()
    if len(candidates) > _MAX_CANDIDATES:
        candidates = candidates[scores[candidates].topk(_MAX_CANDIDATES).indices]
    centre, extent = output[:2, candidates].T, output[2:4, candidates].T
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], 1)
    scores, classes = scores[candidates], classes[candidates]
    if len(boxes) == 0:
        return boxes, scores, classes
    from semisparse._torchvision import torchvision

    keep = torchvision.ops.nms(boxes + classes[:, None] * _CLASS_OFFSET, scores, iou)[:max_boxes]
    return boxes[keep], scores[keep], classes[keep]


class Detector:
    """A converted detector that takes pictures.

    Args:
        network: a `SizedModel` made by the conversion of a detector, or its file.
        confidence, iou, max_boxes: see `suppress`.

    Raises:
        ValueError: it is no converted detector.
    """

    def __init__(
        self,
        network: SizedModel | str | os.PathLike,
        *,
        confidence: float = 0.25,
        iou: float = 0.7,
        max_boxes: int = 300,
    ):
        if isinstance(network, (str, os.PathLike)):
            network = io.load(network)
        check_detector(network)
        self.network = network
        self.names = list(network.info["names"])
        self.confidence, self.iou, self.max_boxes = confidence, iou, max_boxes

    def __call__(self, picture: Tensor | np.ndarray, size: tuple[int, int] | None = None) -> Detections:
        """Find objects in `picture`, uint8 (H, W, 3), RGB, at one of the network's sizes (default: the main).

        Raises ValueError for another kind of picture, or a size that the network was not converted for.
        """
        with torch.inference_mode():
            x, placement = self.preprocess(picture, size)
            return self.postprocess(self.network(x), placement)

    def preprocess(
        self, picture: Tensor | np.ndarray, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Placement]:
        """The network's input, (1, 3, height, width), and where the picture is in it."""
        picture = (
            torch.from_numpy(np.ascontiguousarray(picture)) if isinstance(picture, np.ndarray) else picture
        )
        good = isinstance(picture, Tensor) and picture.dtype == torch.uint8 and picture.dim() == 3
        if not good or picture.shape[2] != 3 or 0 in picture.shape:
            what = type(picture).__name__
            what = f"{picture.dtype} {tuple(picture.shape)}" if isinstance(picture, Tensor) else what
            raise ValueError(f"a picture is a uint8 array (height, width, 3), RGB, but this is {what}")
        size = self.network.sizes[0] if size is None else size
        self.network.at(size)  # raises for unknown sizes
        return letterbox(picture, size)

    def postprocess(self, output: Tensor, placement: Placement) -> Detections:
        """What the network's output for one picture, (1, ...), means in the picture."""
        boxes, scores, classes = suppress(
            output[0],
            end2end=self.network.info["end2end"],
            confidence=self.confidence,
            iou=self.iou,
            max_boxes=self.max_boxes,
        )
        offset = boxes.new_tensor([placement.left, placement.top] * 2)
        limit = boxes.new_tensor([placement.width, placement.height] * 2)
        boxes = ((boxes - offset) / placement.scale).clamp(min=0).minimum(limit)
        return Detections(boxes, scores, classes, self.names)
