"""Kernel patterns (PatDNN, Niu et al., ASPLOS 2020): every 3x3 kernel keeps its centre and a few others.

The shapes come from a small library, so that a compiler or a run-length format sees few distinct ones. With
`group` above 1, that many filters share the pattern of each channel: one loaded input row then serves all of
them (in PatDNN, patterns are chosen kernel by kernel).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from semisparse.recipe import LayerRecipe

from .grouping import spread, unit_means
from .scheme import PLAIN, Context, Scheme

CENTRE, SIDE = 4, 3


@functools.cache
def candidates(entries: int = 4) -> Tensor:
    """All patterns of 3x3 with `entries` weights that contain the centre: bool (n, 3, 3); 56 for 4 entries.

    Raises ValueError if `entries` is not in 1..9.
    """
    if not 1 <= entries <= SIDE * SIDE:
        raise ValueError(f"entries is {entries}, expected 1 to 9: a 3x3 kernel has nine, its centre stays")
    others = [i for i in range(SIDE * SIDE) if i != CENTRE]
    chosen = list(itertools.combinations(others, entries - 1))
    patterns = torch.zeros(len(chosen), SIDE * SIDE, dtype=torch.bool)
    patterns[:, CENTRE] = True
    for pattern, positions in zip(patterns, chosen, strict=True):
        pattern[list(positions)] = True
    return patterns.view(-1, SIDE, SIDE)


def natural_patterns(weight: Tensor, entries: int = 4) -> Tensor:
    """Index into `candidates(entries)` of each kernel's natural pattern: its centre and its largest others.

    weight: (filters, channels, 3, 3); the result is int64 (filters, channels).
    """
    return _kept(weight, candidates(entries)).argmax(-1)


def choose_library(weights: Iterable[Tensor], patterns: int = 8, entries: int = 4) -> Tensor:
    """The `patterns` most frequent natural patterns of all kernels of `weights`: bool (patterns, 3, 3).

    Most frequent first; of equally frequent ones the first candidate. Kernels that are zero have no say.
    Raises ValueError if there are fewer candidates than `patterns`.
    """
    known = candidates(entries)
    if not 1 <= patterns <= len(known):
        raise ValueError(
            f"patterns is {patterns}, but there are {len(known)} patterns of {entries} entries with the "
            f"centre; use 1 to {len(known)}"
        )
    counts = torch.zeros(len(known), dtype=torch.int64)
    for weight in weights:
        natural = natural_patterns(weight, entries)
        used = weight.flatten(2).any(-1)
        counts += torch.bincount(natural[used], minlength=len(known)).cpu()
    return known[counts.argsort(stable=True, descending=True)[:patterns]]


def assign(weight: Tensor, settings: LayerRecipe, context: Context) -> Tensor:
    """Index into the library for each kernel, int64 (filters, channels): what keeps the largest L2 norm.

    Kernels of one channel in the `settings.group` filters of a unit share their pattern.
    """
    kept = unit_means(_kept(weight, context.library), settings.group, context)
    return spread(kept.argmax(-1), len(weight), settings.group, context)


def mask(weight: Tensor, settings: LayerRecipe, ratio: float, context: Context = PLAIN) -> Tensor:
    """Patterns on as many kernels as it takes to remove `ratio`, those first that lose least by it.

    Without a library in `context`, it is chosen from `weight` alone. Raises ValueError if the kernels are not
    3x3.
    """
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (SIDE, SIDE):
        raise ValueError(
            f"patterns are for 3x3 kernels, this weight has the shape {tuple(weight.shape)}; use the scheme "
            "'block_punched' (other kernels) or 'block' (1x1 and linear)"
        )
    if context.library is None:
        context = Context(
            context.groups, choose_library([weight], settings.patterns, settings.entries), context.order
        )
    kept = unit_means(_kept(weight, context.library), settings.group, context)
    best, index = kept.max(-1)
    shapes = context.library.to(weight.device)[index]
    final = final_ratio(weight, settings)
    if ratio < final:
        lost = unit_means(_energy(weight).sum(-1), settings.group, context) - best
        whole = torch.zeros(lost.numel(), dtype=torch.bool, device=weight.device)
        whole[lost.flatten().argsort(stable=True)[round(ratio / final * lost.numel()) :]] = True
        shapes = shapes | whole.view(*lost.shape, 1, 1)
    return spread(shapes, len(weight), settings.group, context)


def final_ratio(weight: Tensor, settings: LayerRecipe) -> float:
    """What patterns remove: 1 - entries/9."""
    return 1 - settings.entries / (SIDE * SIDE)


def _energy(weight: Tensor) -> Tensor:
    return weight.detach().flatten(2).float().square()


def _kept(weight: Tensor, patterns: Tensor) -> Tensor:
    """Squared L2 norm of what each pattern keeps of each kernel: (filters, channels, patterns)."""
    return _energy(weight) @ patterns.flatten(1).t().to(weight.device, torch.float32)


SCHEME = Scheme(mask, final_ratio)
