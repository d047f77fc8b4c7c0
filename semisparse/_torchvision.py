"""The one place from which torchvision is imported: ``from semisparse._torchvision import torchvision``.

torchvision's wheel from the package index is linked against a CUDA build of torch. Beside a CPU-only torch
its C++ library cannot be loaded, and ``import torchvision`` itself then fails ("operator torchvision::nms
does not exist"), although models, transforms and data sets are pure Python. Defining the two operators it
looks for at import, `nms` and `qnms`, before the first import is enough. They get a real kernel, written
with torch, so that `torchvision.ops.nms` and `batched_nms` work too. Where torchvision's own library does
load, nothing is touched.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, library

__all__ = ["nms_kernel", "torchvision"]


def nms_kernel(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, the semantics of `torchvision.ops.nms`.

    Args:
        dets: (N, 4) boxes as (x1, y1, x2, y2).
        scores: (N,).
        iou_threshold: boxes whose intersection over union with a better box is greater than this are dropped.

    Returns:
        int64 indices of the kept boxes, by decreasing score (equal scores: the first one first).

    Raises:
        RuntimeError: shapes other than these.
    """
    if dets.dim() != 2 or dets.size(1) != 4:
        raise RuntimeError(f"boxes must have shape (N, 4), but this is {tuple(dets.shape)}")
    if scores.dim() != 1 or scores.size(0) != dets.size(0):
        raise RuntimeError(f"scores must have shape ({dets.size(0)},), but this is {tuple(scores.shape)}")
    # On numpy arrays: the loop's many small operations cost a fifth of what they do on tensors.
    corners = dets.detach().to(device="cpu", dtype=torch.promote_types(dets.dtype, torch.float32)).numpy()
    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = (np.ascontiguousarray(side) for side in corners[order.cpu().numpy()].T)
    areas = (x2 - x1) * (y2 - y1)
    remaining, keep = np.arange(len(areas)), []
    with np.errstate(invalid="ignore", divide="ignore"):
        while remaining.size > 0:
            best, remaining = remaining[0], remaining[1:]
            keep.append(best)
            width = np.minimum(x2[best], x2[remaining]) - np.maximum(x1[best], x1[remaining])
            height = np.minimum(y2[best], y2[remaining]) - np.maximum(y1[best], y1[remaining])
            intersection = np.maximum(width, 0) * np.maximum(height, 0)
            iou = intersection / (areas[best] + areas[remaining] - intersection)
            # "not greater", rather than "less or equal": for degenerate boxes this is NaN, and torchvision
            # keeps them.
            remaining = remaining[~(iou > iou_threshold)]
    return order[torch.tensor(keep, dtype=torch.int64, device=order.device)]


def _qnms_kernel(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return nms_kernel(dets.to(torch.float32), scores.to(torch.float32), iou_threshold)


def _native_ops_load(spec: importlib.machinery.ModuleSpec) -> bool:
    """Load torchvision's own C++ library, as its import would do next, and tell whether that worked."""
    folder = Path(spec.origin).parent
    for suffix in (*importlib.machinery.EXTENSION_SUFFIXES, ".so", ".pyd"):
        binary = folder / f"_C{suffix}"
        if binary.exists():
            try:
                torch.ops.load_library(str(binary))
                return True
            except OSError:
                return False
    return False


def _import_torchvision():
    if "torchvision" in sys.modules:
        return importlib.import_module("torchvision")
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        raise ImportError("torchvision is needed for this and not installed; pip install torchvision")
    if _native_ops_load(spec):
        return importlib.import_module("torchvision")
    for name, kernel in (("torchvision::nms", nms_kernel), ("torchvision::qnms", _qnms_kernel)):
        library.define(name, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl(name, "default", kernel)
    module = importlib.import_module("torchvision")
    # torchvision.ops.nms asks for the whole library first; the one operator that this file uses is there now.
    boxes = importlib.import_module("torchvision.ops.boxes")
    boxes._assert_has_ops = lambda: None
    return module


torchvision = _import_torchvision()
