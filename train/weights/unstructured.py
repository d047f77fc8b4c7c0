"""Single weights by magnitude: the baseline that every structured scheme is compared with."""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .boxes import Boxes, box_scheme
from .scheme import PLAIN, Context


def cuts(weight: Tensor, settings: LayerRecipe, context: Context = PLAIN) -> tuple[Boxes, ...]:
    return (Boxes(weight.shape, 1, 1),)


SCHEME = box_scheme(cuts)
