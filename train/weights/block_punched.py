"""Block-punched convolutions (YOLObile, Cai et al., AAAI 2021): a block of filters x channels loses the same
kernel positions in all of its kernels. A 1x1 convolution loses whole blocks."""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .boxes import Boxes, keep_in_turn
from .scheme import PLAIN, Context, Scheme


def parts(weight: Tensor, settings: LayerRecipe, context: Context = PLAIN) -> tuple[Boxes, ...]:
    return (Boxes(weight.shape, *settings.block, context=context),)


def mask(weight: Tensor, settings: LayerRecipe, ratio: float, context: Context = PLAIN) -> Tensor:
    return keep_in_turn(parts(weight, settings, context), weight, ratio)


SCHEME = Scheme(mask, parts=parts)
