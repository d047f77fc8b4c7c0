"""One ratio for many layers (`columns.scope: global`): how much each of them loses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def most(ratio: float) -> float:
    """What a layer may lose at most where all together lose `ratio`.

    Saliency judges columns one by one. Without a limit it empties layers in which every single column looks
    dispensable, and what they say together is lost.
    """
    return min(2 * ratio, (1 + ratio) / 2)


def allocate(scores: Mapping[str, Tensor], macs: Mapping[str, float], ratio: float) -> dict[str, float]:
    """Ratios by layer, such that together they lose `ratio` of their multiplications.

    The columns that go first have the lowest saliency for each multiplication that they cost: the least
    estimated rise of the loss, the fractional knapsack. Layers that a task hardly uses give more than others.

    Args:
        scores: saliency (OH, OW), comparable between layers, by layer; others than those of `macs` may be
            among them.
        macs: multiply-accumulates that one column costs, by layer.
        ratio: fraction removed in total, in [0, 1).

    Returns: fraction removed by layer, each at most `most(ratio)`.
    """
    if ratio == 0:
        return dict.fromkeys(macs, 0.0)
    worth, cost, owner = [], [], []
    for index, name in enumerate(macs):
        flat = scores[name].flatten().double()
        lowest = flat.sort().values[: int(most(ratio) * len(flat) + 1e-9)]
        worth.append(lowest / macs[name])
        cost.append(torch.full_like(lowest, macs[name]))
        owner.append(torch.full(lowest.shape, index))
    order = torch.argsort(torch.cat(worth), stable=True)  # the same on every rank
    total = ratio * sum(macs[name] * scores[name].numel() for name in macs)
    gone = torch.cat(cost)[order].cumsum(0) <= total * (1 + 1e-9)
    counts = torch.bincount(torch.cat(owner)[order][gone], minlength=len(macs)).tolist()
    return {name: count / scores[name].numel() for name, count in zip(macs, counts, strict=True)}
