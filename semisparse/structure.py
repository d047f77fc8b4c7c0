"""Which structure the zeros of a weight have, found from the zeros alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Structure", "find_structure"]

_SIDES = (16, 8, 4, 2)  # of the boxes that are looked for


@dataclass(frozen=True)
class Structure:
    """What `find_structure` finds.

    Attributes:
        scheme: in the vocabulary of recipes: dense, structured (whole filters or input channels, the rest
            full), pattern (3x3 kernels that keep their centre and equally many other weights, at most 4 in
            all or always the same number), block_punched, block, or unstructured. `connectivity` if all that
            is removed are whole kernels.
        patterns: different shapes of the largest kernels; None for other schemes than pattern.
        connectivity: fraction of the kernels that are removed as a whole; 0 for linear and 1x1 layers.
        block: filters x channels of the boxes that are removed together, as far as they are powers of two up
            to 16; (1, 1) if there are none. Filters need not be neighbours.
    """

    scheme: str
    patterns: int | None = None
    connectivity: float = 0.0
    block: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        """The details beside `scheme`, such as '8 patterns, 72% of kernels, 4x1 blocks'; empty for none."""
        words = []
        if self.patterns is not None:
            words.append(f"{self.patterns} pattern{'s' if self.patterns != 1 else ''}")
        if self.connectivity > 0:
            words.append(f"{self.connectivity:.0%} of kernels")
        if max(self.block) > 1:
            words.append(f"{self.block[0]}x{self.block[1]} blocks")
        return ", ".join(words)


def find_structure(weight: Tensor, groups: int = 1) -> Structure:
    """Name the structure of the zeros of `weight`, (filters, channels / groups, ...) or (out, in)."""
    used = (weight != 0).flatten(2) if weight.dim() > 2 else (weight != 0)[:, :, None]
    if bool(used.all()):
        return Structure("dense")
    filters, channels = used.flatten(1).any(1), used.any(2).any(0)
    if bool(used[filters][:, channels].all()):
        return Structure("structured")
    spatial = used.shape[2] > 1
    block = (_filters_alike(used, groups), _channels_alike(used))
    kernels = used.any(2)
    connectivity = 1 - kernels.double().mean().item() if spatial else 0.0
    if spatial and bool(used[kernels].all()):
        return Structure("connectivity", connectivity=connectivity, block=block)
    if tuple(weight.shape[2:]) == (3, 3) and (patterns := _patterns(used[kernels])) is not None:
        return Structure("pattern", patterns, connectivity, block)
    if block[0] > 1 and (block[0] > 2 or block[1] > 1) or not spatial and block[1] > 2:
        scheme = "block_punched" if spatial else "block"
        return Structure(scheme, connectivity=connectivity, block=block)
    return Structure("unstructured", connectivity=connectivity, block=block)


def _patterns(kernels: Tensor) -> int | None:
    """How many shapes the kernels (n, 9) have, if they keep their centre and few or equally many weights."""
    counts = kernels.sum(1)
    most = int(counts.max())
    if not bool(kernels[:, 4].all()) or (most > 4 and bool((counts < most).any())):
        return None
    # Training may leave a zero in a pattern: kernels with fewer weights are no shapes of their own.
    return len(torch.unique(kernels[counts == most], dim=0))


def _filters_alike(used: Tensor, groups: int) -> int:
    """The most filters that have the same zeros everywhere: neighbours, or any that fit."""
    for side in _SIDES:
        if side <= used.shape[0] // groups:
            units = [
                unit for part in used.flatten(1).chunk(groups) for unit in part.split(side) if len(unit) > 1
            ]
            if all(bool((unit == unit[0]).all()) for unit in units):
                return side
    counts = torch.unique(used.flatten(1), dim=0, return_counts=True)[1]
    return next((side for side in _SIDES if bool((counts % side == 0).all())), 1)


def _channels_alike(used: Tensor) -> int:
    """The most neighbouring channels that have the same zeros everywhere."""
    for side in _SIDES:
        if side <= used.shape[1]:
            units = [unit for unit in used.split(side, 1) if unit.shape[1] > 1]
            if all(bool((unit == unit[:, :1]).all()) for unit in units):
                return side
    return 1
