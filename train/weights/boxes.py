"""Weights that stay or go together: boxes of filters x channels, at one kernel position or through all.

Every scheme but patterns is a cut of the weight into such boxes: one weight (unstructured), 8 x 4 at each
position (block-punched), 8 x 1 (columns of a block), a whole filter or channel (structured).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from semisparse.recipe import LayerRecipe

from .grouping import spread, unit_means
from .scheme import PLAIN, Context, Scheme, keep_largest


@dataclass(frozen=True)
class Boxes:
    """The cut of one weight, (filters, channels / groups, kernel height, kernel width) or (out, in).

    Boxes never reach over channel groups, and the last ones of a group are smaller where sizes do not divide.
    Filters are taken in the order of `context`.

    Attributes:
        shape: of the weight.
        filters, channels: sides of a box.
        whole_kernels: a box holds all kernel positions; otherwise each position has boxes of its own.
    """

    shape: tuple[int, ...]
    filters: int
    channels: int
    whole_kernels: bool = False
    context: Context = PLAIN

    def mean_squares(self, weight: Tensor) -> Tensor:
        """Mean square of the weights in each box: float32 (filter units, channel units, positions or 1).

        The squared L2 norm per weight, so that boxes of different sizes compare fairly.
        """
        squares = weight.detach().float().square().reshape(*weight.shape[:2], -1)
        if self.whole_kernels:
            squares = squares.mean(2, keepdim=True)
        means = unit_means(squares, self.filters, self.context)
        short = -means.shape[1] % self.channels
        sums = F.pad(means, (0, 0, 0, short)).unflatten(1, (-1, self.channels)).sum(2)
        return sums / self._channel_counts(sums.device)[:, None]

    @property
    def sizes(self) -> Tensor:
        """Weights in each box: float32, shaped like `mean_squares`."""
        per_group = self.shape[0] // self.context.groups
        filters = torch.full((-(-per_group // self.filters),), float(self.filters))
        filters[-1] -= -per_group % self.filters
        positions = math.prod(self.shape[2:])
        inside, outside = (positions, 1) if self.whole_kernels else (1, positions)
        of_group = filters[:, None, None] * self._channel_counts("cpu")[:, None] * inside
        return of_group.repeat(self.context.groups, 1, outside)

    def expand(self, values: Tensor) -> Tensor:
        """Give every weight the value of its box: shape like `mean_squares` to shape like the weight."""
        values = values.repeat_interleave(self.channels, 1)[:, : self.shape[1]]
        values = spread(values, self.shape[0], self.filters, self.context)
        return values.expand(-1, -1, math.prod(self.shape[2:])).reshape(self.shape)

    def _channel_counts(self, device) -> Tensor:
        counts = torch.full((-(-self.shape[1] // self.channels),), float(self.channels), device=device)
        counts[-1] -= -self.shape[1] % self.channels
        return counts


def keep_in_turn(cuts: tuple[Boxes, ...], weight: Tensor, ratio: float) -> Tensor:
    """Remove boxes of one cut after the other, each an equal factor, until `ratio` of the weights is gone.

    Later cuts look at what the earlier ones left.
    """
    mask = torch.ones_like(weight, dtype=torch.bool)
    for index, boxes in enumerate(cuts):
        left = boxes.mean_squares(mask)  # fraction of each box
        sizes = left * boxes.sizes.to(left.device)
        wanted = weight.numel() * (1 - ratio) ** ((index + 1) / len(cuts))
        scores = boxes.mean_squares(weight * mask) / left.clamp(min=1e-12)
        keep = keep_largest(scores, max(1 - wanted / sizes.sum().item(), 0.0), sizes)
        mask &= boxes.expand(keep)
    return mask


def box_scheme(cuts: Callable[[Tensor, LayerRecipe, Context], tuple[Boxes, ...]]) -> Scheme:
    """The scheme that removes the weakest boxes of `cuts`."""

    def mask(weight: Tensor, settings: LayerRecipe, ratio: float, context: Context = PLAIN) -> Tensor:
        return keep_in_turn(cuts(weight, settings, context), weight, ratio)

    return Scheme(mask, cuts=cuts)
