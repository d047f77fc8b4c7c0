"""Filters that decide together: units of `group` filters, neighbours in an order, of one channel group."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .scheme import Context


def unit_means(values: Tensor, group: int, context: Context) -> Tensor:
    """Mean of `values` (filters, ...) over the filters of each unit: (units, ...).

    The last unit of a channel group may have fewer filters. Sums run in one fixed order, so that equal
    weights give equal decisions on every rank.
    """
    if group == 1:
        return values
    if context.order is not None:
        values = values[context.order]
    shape, per_group = values.shape[1:], len(values) // context.groups
    values = values.reshape(context.groups, per_group, -1)
    short = -per_group % group
    sums = F.pad(values, (0, 0, 0, short)).view(context.groups, -1, group, values.shape[-1]).sum(2)
    counts = torch.full((sums.shape[1], 1), float(group), dtype=sums.dtype, device=sums.device)
    counts[-1] -= short
    return (sums / counts).view(-1, *shape)


def spread(units: Tensor, filters: int, group: int, context: Context) -> Tensor:
    """Give every filter what was decided for its unit: (units, ...) to (filters, ...)."""
    if group == 1:
        return units
    per_group = filters // context.groups
    of_position = units.view(context.groups, -1, *units.shape[1:]).repeat_interleave(group, 1)
    of_position = of_position[:, :per_group].flatten(0, 1)
    if context.order is None:
        return of_position
    of_filter = torch.empty_like(of_position)
    of_filter[context.order] = of_position
    return of_filter
