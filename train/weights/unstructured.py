"""Single weights by magnitude: the baseline that every structured scheme is compared with."""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .scheme import PLAIN, Context, Scheme, keep_largest


def mask(weight: Tensor, settings: LayerRecipe, ratio: float, context: Context = PLAIN) -> Tensor:
    return keep_largest(weight.abs(), ratio)


def group_norms(weight: Tensor, settings: LayerRecipe, context: Context = PLAIN) -> Tensor:
    return weight.abs()


SCHEME = Scheme(mask, group_norms=group_norms)
