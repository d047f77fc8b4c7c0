"""Blocks of linear and 1x1 layers: the matrix is cut into blocks, each loses rows or columns of its own.

With `axis: channels` (the default) a block loses input channels: `block[0]` filters share which channels they
read, which is what a register tile of filters needs. With `filters`, a filter loses `block[1]` channels at
once. `both` does one after the other (block-based column-row pruning).
"""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .boxes import Boxes, box_scheme
from .scheme import PLAIN, Context


def cuts(weight: Tensor, settings: LayerRecipe, context: Context = PLAIN) -> tuple[Boxes, ...]:
    """Columns of the blocks, their rows, or columns and then rows."""
    filters, channels = settings.block
    columns = Boxes(weight.shape, filters, 1, True, context)
    rows = Boxes(weight.shape, 1, channels, True, context)
    return {"filters": (rows,), "channels": (columns,), "both": (columns, rows)}[settings.axis or "channels"]


SCHEME = box_scheme(cuts)
