"""One ratio for many layers (`scope: global`): how much each of them loses."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch

from .layer import Layer


def allocate(layers: Iterable[Layer]) -> None:
    """Set `ratio` of the layers whose recipe says `scope: global`; the others stay as they are.

    Layers with equal scheme, ratio, method and schedule share: together they lose `ratio` of their
    multiplications. What goes first are the boxes that distort least for each multiplication that they cost:
    those with the lowest layer-adaptive magnitude score (LAMP, Lee et al., ICLR 2021: the square of a box
    relative to all squares of its layer that are at least as large) by output positions of the layer.
    """
    pools: dict[tuple, list[Layer]] = {}
    for layer in layers:
        s = layer.settings
        if s.scope == "global" and layer.scheme is not None and layer.scheme.cuts is not None:
            pools.setdefault((s.scheme, s.ratio, s.method, s.begin, s.end), []).append(layer)
    for (_, ratio, *_), pool in pools.items():
        _share_out([_Ladder(layer) for layer in pool], ratio)


class _Ladder:
    """The boxes of a layer in the order in which they go, the first ones first."""

    def __init__(self, layer: Layer):
        self.layer = layer
        boxes = layer.cuts()[0]
        means = boxes.mean_squares(layer.weight).flatten().cpu()
        order = torch.from_numpy(np.argsort(means.numpy()))  # several times faster than torch's sort
        means, sizes = means[order].double(), boxes.sizes.flatten()[order].double()
        at_least = (means * sizes).flip(0).cumsum(0).flip(0).clamp(min=torch.finfo(torch.float64).tiny)
        self.scores = means * sizes.max() / at_least / max(layer.positions, 1)
        self.removed = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])  # weights, when so many boxes go
        self.macs = self.removed[-1].item() * layer.positions

    def ratio(self, threshold: float) -> float:
        """Fraction of the weights in boxes that score less; never all."""
        count = int(torch.searchsorted(self.scores, torch.tensor(threshold, dtype=torch.float64)))
        return (self.removed[min(count, len(self.scores) - 1)] / self.removed[-1]).item()


def _share_out(ladders: list[_Ladder], ratio: float) -> None:
    macs = max(sum(ladder.macs for ladder in ladders), 1)

    def removed(threshold: float) -> float:
        return sum(ladder.ratio(threshold) * ladder.macs for ladder in ladders) / macs

    low, high = 1e-300, 2 * max(ladder.scores[-1].item() for ladder in ladders) + 1e-300
    for _ in range(100):
        middle = math.sqrt(low) * math.sqrt(high)  # scores span many orders of magnitude
        low, high = (middle, high) if removed(middle) < ratio else (low, middle)
    threshold = min(low, high, key=lambda threshold: abs(removed(threshold) - ratio))
    for ladder in ladders:
        ladder.layer.ratio = ladder.ratio(threshold)
