"""What a weight scheme is: pure functions from a weight to the mask of what it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from semisparse.recipe import LayerRecipe

if TYPE_CHECKING:
    from .boxes import Boxes


@dataclass(frozen=True)
class Context:
    """What a scheme may need besides the weight and the layer's settings.

    Attributes:
        groups: channel groups of the convolution; filters of different groups share nothing.
        library: patterns to choose from, bool (k, kh, kw); `pattern` only.
        order: the filters, int64 (out channels,), in the order in which `group` neighbours share a pattern;
            None for the order of the weight.
    """

    groups: int = 1
    library: Tensor | None = None
    order: Tensor | None = None


PLAIN = Context()


@dataclass(frozen=True)
class Scheme:
    """One kind of weight sparsity.

    Attributes:
        mask: `(weight, settings, ratio, context) -> bool tensor like weight`, True = kept: the nearest weight
            (in the L2 norm) that has the structure. It is pure: equal arguments, equal masks. `ratio` is the
            fraction removed, between 0 and `final_ratio`, so that schedules can approach it.
        final_ratio: `(weight, settings) -> fraction removed in the end`.
        cuts: `(weight, settings, context) -> (Boxes, ...)`: which weights stay or go together; a weight stays
            if its box of every cut does. None where the structure is not of that kind.
    """

    mask: Callable[[Tensor, LayerRecipe, float, Context], Tensor]
    final_ratio: Callable[[Tensor, LayerRecipe], float] = lambda weight, settings: settings.ratio
    cuts: Callable[[Tensor, LayerRecipe, Context], tuple[Boxes, ...]] | None = None


def keep_largest(scores: Tensor, ratio: float, sizes: Tensor | None = None) -> Tensor:
    """Bool like `scores`: what stays when the lowest go, until the share of what went is nearest to `ratio`.

    sizes: how much each score stands for, like `scores`; None for all the same. At least one stays, so that
    no layer becomes constant; of equal scores the last ones go.
    """
    scores = scores.detach()
    flat = scores.flatten()
    if sizes is None or bool((sizes == sizes.flatten()[0]).all()):
        removed = min(math.floor(ratio * len(flat) + 0.5), len(flat) - 1)
        keep = torch.ones_like(flat, dtype=torch.bool)
        if removed > 0:  # a selection, not a sort: weights come by the million
            limit = flat.kthvalue(removed).values
            keep = flat > limit
            ties = (flat == limit).nonzero()[:, 0]
            keep[ties[: len(flat) - removed - int(keep.sum())]] = True
    else:
        order = flat.argsort(stable=True, descending=True)
        sizes = sizes.to(flat.device).flatten()[order].double()
        gone = sizes.flip(0).cumsum(0).flip(0)  # if this one and all weaker ones go
        kept = int((gone - sizes / 2 > ratio * sizes.sum()).sum())
        keep = torch.zeros_like(flat, dtype=torch.bool)
        keep[order[: max(kept, 1)]] = True
    return keep.view(scores.shape)
