"""One score map for the whole network, seen by each layer at its own resolution."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def propagate(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores (H, W) of the input's pixels, averaged over what each output pixel of a layer covers: (OH, OW).

    Adaptive pooling serves any pair of sizes, also where one does not divide the other and for maps that are
    not square (the published code pools by `imgsz // oh` and fails there).
    """
    if tuple(scores.shape) == tuple(size):
        return scores
    return F.adaptive_avg_pool2d(scores[None, None], size)[0, 0]
