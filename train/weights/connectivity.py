"""Connectivity pruning (PatDNN): whole kernels go, cutting the link from one channel to one filter."""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .grouping import spread, unit_means
from .scheme import PLAIN, Context, keep_largest


def mask(weight: Tensor, settings: LayerRecipe, ratio: float, context: Context = PLAIN) -> Tensor:
    """Keep the layer's kernels with the largest L2 norm; a unit of `settings.group` filters shares them."""
    energy = weight.detach().flatten(2).float().square().sum(-1)
    keep = keep_largest(unit_means(energy, settings.group, context), ratio)
    return spread(keep, len(weight), settings.group, context)[:, :, None, None].expand(weight.shape)
