"""What a weight scheme is: pure functions from a weight to the mask of what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from semisparse.recipe import LayerRecipe


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
        group_norms: `(weight, settings, context) -> tensor broadcastable to weight`, differentiable: the L2
            norm of the group of weights that stays or goes together with each weight. None if there are none.
    """

    mask: Callable[[Tensor, LayerRecipe, float, Context], Tensor]
    final_ratio: Callable[[Tensor, LayerRecipe], float] = lambda weight, settings: settings.ratio
    group_norms: Callable[[Tensor, LayerRecipe, Context], Tensor] | None = None


def keep_largest(scores: Tensor, ratio: float) -> Tensor:
    """Bool like `scores`: all but the `round(ratio * n)` lowest ones; of equal scores the last ones go."""
    removed = round(ratio * scores.numel())
    order = scores.flatten().argsort(stable=True, descending=True)
    keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    keep[order[scores.numel() - removed :]] = False
    return keep.view(scores.shape)
