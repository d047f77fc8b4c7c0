"""Connectivity pruning (PatDNN): whole kernels go, cutting the link from one channel to one filter."""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .boxes import Boxes
from .scheme import PLAIN, Context, keep_largest


def mask(weight: Tensor, settings: LayerRecipe, ratio: float, context: Context = PLAIN) -> Tensor:
    """Keep the layer's kernels with the largest L2 norm; a unit of `settings.group` filters shares them."""
    kernels = Boxes(tuple(weight.shape), settings.group, 1, whole_kernels=True, context=context)
    return kernels.expand(keep_largest(kernels.mean_squares(weight), ratio, kernels.sizes))
