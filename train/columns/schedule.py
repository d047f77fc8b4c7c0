"""How much is removed after a number of steps."""

from __future__ import annotations

from semisparse.recipe import Columns


def scheduled_ratio(columns: Columns, progress: float) -> float:
    """Fraction removed at `progress` (0..1) through training.

    s(p) = s_f + (s_0 - s_f)(1 - p)^2, where p runs from 0 at `begin` to 1 at `end`: the polynomial decay
    of Zhu and Gupta (2017), as Grimaldi et al. (2023) use it. Nothing is removed before `begin`.
    """
    if progress < columns.begin:
        return 0.0
    if progress >= columns.end:
        return columns.ratio
    p = (progress - columns.begin) / (columns.end - columns.begin)
    return columns.ratio + (columns.initial - columns.ratio) * (1 - p) ** 2
