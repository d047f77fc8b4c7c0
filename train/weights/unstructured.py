"""Single weights by magnitude: the baseline that every structured scheme is compared with."""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .boxes import Boxes
from .scheme import PLAIN, Context, Scheme, keep_largest


def mask(weight: Tensor, settings: LayerRecipe, ratio: float, context: Context = PLAIN) -> Tensor:
    return keep_largest(weight.abs(), ratio)


def parts(weight: Tensor, settings: LayerRecipe, context: Context = PLAIN) -> tuple[Boxes, ...]:
    return (Boxes(weight.shape, 1, 1),)


SCHEME = Scheme(mask, parts=parts)
