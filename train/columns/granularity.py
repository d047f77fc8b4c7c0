"""From scores of output pixels to a mask that removes them in the units that the kernels like."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def make_mask(scores: Tensor, ratio: float, granularity: str = "pixel", round_to: int = 1) -> Tensor:
    """The mask that removes `ratio` of the columns, the units with the lowest mean score first.

    Args:
        scores: float (OH, OW); higher = keep.
        ratio: fraction removed, in [0, 1). What whole units can come closest to is removed, never everything.
        granularity: `pixel`, `run4`, `run8`, `run16` or `tile4x4`; runs and tiles are aligned, those at the
            end of the map may be smaller.
        round_to: the number kept is rounded to the nearest positive multiple of this many columns (or to all
            columns, where one multiple is more than there are), and units are removed only while at least
            that number stays.

    Returns: bool (OH, OW), True = computed.
    """
    if scores.dim() != 2:
        raise ValueError(f"scores have shape {tuple(scores.shape)}, expected (OH, OW)")
    height, width = scores.shape
    units = unit_index(height, width, granularity).to(scores.device)
    count = height * width
    size = torch.bincount(units)
    mean = torch.zeros(len(size), dtype=torch.float64, device=scores.device)
    mean.index_add_(0, units, scores.flatten().double())
    mean /= size
    # Stable: equal scores must give the same mask on every rank and in a resumed run.
    order = torch.argsort(mean, stable=True)
    removed = torch.cat([size.new_zeros(1), size[order].cumsum(0)])[
        :-1
    ]  # columns gone with the first k units
    target = count * ratio
    if round_to > 1:
        keep = min(max(round((count - target) / round_to), 1) * round_to, count)
        k = int((removed <= count - keep).sum()) - 1
    else:
        k = int((removed.double() - target).abs().argmin())
    gone = torch.zeros(len(size), dtype=torch.bool, device=scores.device)
    gone[order[:k]] = True
    return ~gone[units].view(height, width)


def is_mask_of(mask: Tensor, ratio: float, granularity: str = "pixel", round_to: int = 1) -> bool:
    """Whether `make_mask` could have made the mask from some scores. Where units at the end of a map are
    smaller, how much goes depends on which do: by one unit at most."""
    units = unit_index(*mask.shape, granularity).to(mask.device)
    size = torch.bincount(units)
    kept = torch.bincount(units, weights=mask.flatten().double())
    whole = bool(((kept == 0) | (kept == size)).all())
    expected = make_mask(mask.float(), ratio, granularity, round_to)
    slack = int(size.max()) if size.max() > size.min() else 0
    return whole and abs(int(expected.sum()) - int(mask.sum())) <= slack


@lru_cache(maxsize=256)
def unit_index(height: int, width: int, granularity: str) -> Tensor:
    """The unit of each column, int64 (OH * OW,), numbered without gaps from 0."""
    index = torch.arange(height * width)
    if granularity == "pixel":
        return index
    if granularity.startswith("run") and granularity[3:].isdigit():
        return index // int(granularity[3:])
    if granularity.startswith("tile"):
        rows, _, columns = granularity[4:].partition("x")
        if rows.isdigit() and columns.isdigit():
            tall, wide = int(rows), int(columns)
            return (index // width // tall) * -(-width // wide) + index % width // wide
    raise ValueError(f"granularity {granularity!r} is unknown; choose pixel, run4, run8, run16 or tile4x4")
