"""Structured pruning: whole filters, or whole input channels, by L2 norm (Li et al., 2017)."""

from __future__ import annotations

from torch import Tensor

from semisparse.recipe import LayerRecipe

from .boxes import Boxes, box_scheme
from .scheme import PLAIN, Context


def cuts(weight: Tensor, settings: LayerRecipe, context: Context = PLAIN) -> tuple[Boxes, ...]:
    """Filters (the default `axis`), channels, or channels and then filters."""
    filters = Boxes(weight.shape, 1, weight.shape[1], True, context)
    channels = Boxes(weight.shape, weight.shape[0] // context.groups, 1, True, context)
    return {"filters": (filters,), "channels": (channels,), "both": (channels, filters)}[
        settings.axis or "filters"
    ]


SCHEME = box_scheme(cuts)
