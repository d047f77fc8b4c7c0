"""Which filters share: similar ones next to each other (PatDNN's filter reordering, done before training)."""

from __future__ import annotations

import torch
from torch import Tensor

from semisparse.recipe import LayerRecipe

from .scheme import Context


def similar_filters(weight: Tensor, settings: LayerRecipe, context: Context) -> Tensor:
    """An order of the filters, int64 (filters,), in which units of `settings.group` lose little by sharing.

    Greedy: a unit starts with the strongest filter that is left and takes, one after the other, the filter
    with which it keeps the most energy, given that it must share one pattern per channel and that a
    `settings.connectivity` of the kernels will go. Filters stay in their channel group. Equal weights give
    equal orders.
    """
    order = []
    per_group = len(weight) // context.groups
    for first in range(0, len(weight), per_group):
        kept = _kept(weight[first : first + per_group], context.library)
        order.append(first + _greedy(kept, settings.group, _price(kept, settings.connectivity)))
    return torch.cat(order)


def _kept(weight: Tensor, library: Tensor | None) -> Tensor:
    """What each pattern keeps of each kernel: (filters, patterns, channels); without patterns, everything."""
    energy = weight.detach().flatten(2).float().cpu().square()
    if library is None:
        return energy.sum(-1)[:, None]
    return (energy @ library.flatten(1).t().float()).transpose(1, 2).contiguous()


def _price(kept: Tensor, connectivity: float) -> float:
    """Energy per filter below which a kernel is worth removing: the Lagrange multiplier of connectivity."""
    if connectivity == 0:
        return 0.0
    best = kept.amax(1).flatten().sort().values
    # Between the last that goes and the first that stays: weights that are pruned already keep their order.
    removed = min(max(round(connectivity * len(best)), 1), len(best) - 1)
    return best[removed - 1 : removed + 1].mean().item()


def _greedy(kept: Tensor, group: int, price: float) -> Tensor:
    left = list(range(len(kept)))
    strength = kept.amax(1).sum(-1)
    order: list[int] = []
    while left:
        remaining = torch.tensor(left)
        first = left[int(strength[remaining].argmax())]
        unit, total = [first], kept[first]
        left.remove(first)
        while left and len(unit) < group:
            remaining = torch.tensor(left)
            shared = (kept[remaining] + total).amax(1) - price * (len(unit) + 1)
            value = shared.clamp_(min=0).sum(-1) - _alone(strength, kept, remaining, price)
            chosen = left[int(value.argmax())]
            unit.append(chosen)
            total = total + kept[chosen]
            left.remove(chosen)
        order += unit
    return torch.tensor(order)


def _alone(strength: Tensor, kept: Tensor, filters: Tensor, price: float) -> Tensor:
    """What filters keep by themselves: a strong filter must not be taken only because it is strong."""
    if price == 0:
        return strength[filters]
    return (kept[filters].amax(1) - price).clamp_(min=0).sum(-1)
