"""Masks of a given ratio without any training: latency does not depend on which columns a criterion chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import nn

from semisparse.recipe import SKIP_RULES, Columns, Recipe
from semisparse.train.sparsifier import Sparsifier


def columns(ratio: float, granularity: str = "pixel") -> Columns:
    """Columns removed at random, coherently over the layers, from the first step on."""
    return Columns(ratio=ratio, granularity=granularity, criterion="coherent_random", begin=0.0, end=0.0)


def label(setting: Columns) -> str:
    """`dense`, `0.3 pixel`, `0.3 run16`..."""
    return f"{setting.ratio:g} {setting.granularity}" if setting.ratio else "dense"


def impose_columns(
    model: nn.Module,
    setting: Columns,
    example: torch.Tensor,
    *,
    skip: Sequence[str] = SKIP_RULES,
    seed: int = 0,
) -> None:
    """Attach column masks to `model`, drawn by the generator that training uses.

    Args:
        setting: what to remove; nothing happens at ratio 0.
        example: input (N, C, H, W) that fixes the masks' sizes.
        skip: layers to leave dense, as `_skip` in a recipe.
    """
    if not setting.ratio:
        return
    recipe = Recipe({"_default": {"columns": asdict(setting)}, "_skip": list(skip)})
    sparsifier = Sparsifier(model, recipe, example, total_steps=1, seed=seed)
    sparsifier.step()
    sparsifier.finalize()
