"""Block-punched convolutions (YOLObile, Cai et al., AAAI 2021): a block of filters x channels loses the same
kernel positions in all of its kernels. A 1x1 convolution loses whole blocks."""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .boxes import Boxes, box_scheme
from .scheme import PLAIN, Context


def cuts(weight: Tensor, settings: LayerRecipe, context: Context = PLAIN) -> tuple[Boxes, ...]:
    return (Boxes(weight.shape, *settings.block, context=context),)


SCHEME = box_scheme(cuts)
