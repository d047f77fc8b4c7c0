"""One ratio for many layers (`scope: global`): how much each of them loses."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .layer import Layer
from .scheme import keep_largest


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
        cuts = [layer.cuts()[0] for layer in pool]
        scores = [
            _scores(boxes.mean_squares(x.weight), boxes.sizes) / max(x.positions, 1)
            for boxes, x in zip(cuts, pool, strict=True)
        ]
        costs = [boxes.sizes.flatten() * x.positions for boxes, x in zip(cuts, pool, strict=True)]
        keep = keep_largest(torch.cat(scores), ratio, torch.cat(costs))
        for layer, cost, kept in zip(pool, costs, keep.cpu().split([len(c) for c in costs]), strict=True):
            layer.ratio = 1 - (cost[kept].sum() / cost.sum()).item()


def _scores(means: Tensor, sizes: Tensor) -> Tensor:
    means, sizes = means.flatten().double(), sizes.to(means.device).flatten().double()
    order = means.argsort(stable=True)
    at_least = (means * sizes)[order].flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(means)
    scores[order] = means[order] * sizes.max() / at_least.clamp(min=torch.finfo(torch.float64).tiny)
    return scores
