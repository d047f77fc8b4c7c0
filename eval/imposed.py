"""Sparsity imposed without any training: latency does not depend on which weights and columns a method chose.

A setting is written as a text, `pattern+connectivity=0.72+group=4, columns=0.3`: items joined by `+` or `,`,
each a scheme (with its ratio where it has one: `unstructured=0.8`), `connectivity=RATIO`, `columns=RATIO`, or
any other field of a recipe: `granularity=run16` of columns, `block=8x4`. Ratios are fractions removed. It
holds for the layers that a recipe's default skip rules leave; after a `;`, `1x1: block_punched=0.75` names a
kind of layer and its own setting, and `re:head.*: columns=0` layers by their names. The name or file of a
recipe is a setting too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from semisparse.recipe import REGEX, SCHEMES, Columns, LayerRecipe, Recipe
from semisparse.train.sparsifier import Sparsifier

_COLUMN_FIELDS = {field.name for field in dataclasses.fields(Columns)} - {
    "ratio",
    "scope",  # is that of the weights here: columns are removed at random
    "begin",
    "end",
    "every",
}
_LAYER_FIELDS = {field.name for field in dataclasses.fields(LayerRecipe)} - {
    "columns",
    "begin",
    "end",
    "every",
}


@dataclass(frozen=True)
class Imposed:
    """A setting and how reports call it."""

    label: str
    recipe: Recipe

    def __str__(self) -> str:
        return self.label

    @property
    def dense(self) -> bool:
        return not any(name != "_skip" for name in self.recipe.to_dict())


def parse(text: str) -> Imposed:
    """Read a setting; see the module's docstring. `dense`, or nothing, is no sparsity at all.

    Raises:
        ValueError: an unknown word, or a value that recipes refuse.
    """
    label = re.sub(r"\s+", "", text) or "dense"
    if label == "dense":
        return Imposed(label, Recipe())
    if label in Recipe.shipped() or Path(text).is_file():
        return Imposed(Path(text).stem, Recipe.load(text).at_once())
    entries: dict = {}
    for rule in filter(None, label.split(";")):
        kind, colon, items = rule.rpartition(":")
        name = kind if kind.startswith(REGEX) else f"_{kind}" if colon else "_default"
        entries[name] = _settings(items, text)
    try:
        return Imposed(label, Recipe(entries).at_once())
    except ValueError as error:
        raise ValueError(f"imposed sparsity {text!r}: {error}") from None


def impose(
    model: nn.Module,
    setting: Imposed,
    example: torch.Tensor,
    *,
    skip: Sequence[str] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Make `model` sparse, in place, by the masks that training makes: weights by magnitude, columns at
    random, coherently over the layers.

    Args:
        example: input (N, C, H, W) that fixes the column masks' sizes.
        skip: layers to leave dense, as `_skip` in a recipe, instead of the setting's own.

    Returns:
        The same model.

    Raises:
        ValueError: the setting does not fit the model's layers, or is for none of them.
    """
    if not setting.dense:
        recipe = setting.recipe
        if skip is not None:
            recipe = Recipe(recipe.to_dict() | {"_skip": list(skip)})
        if not recipe.resolve(model):
            raise ValueError(
                f"{setting} removes nothing here: the model has no layer that it is for. Exported programs "
                "have no layers at all, only operators; give the model itself, as MODULE:FUNCTION"
            )
        sparsifier = Sparsifier(model, recipe, example, seed=seed)
        sparsifier.step()
        sparsifier.finalize()
    return model


def _settings(items: str, text: str) -> dict:
    settings: dict = {}
    columns: dict = {}
    for item in re.split(r"[+,]", items):
        name, _, value = item.partition("=")
        if name in SCHEMES and not re.fullmatch(r"\d+x\d+", value):
            settings["scheme"] = name
            if value:
                settings["ratio"] = _value(value)
        elif name == "columns":
            columns["ratio"] = _value(value)
        elif name == "block":
            settings["block"] = [int(side) for side in value.split("x")]
        elif name in _COLUMN_FIELDS:
            columns[name] = _value(value)
        elif name in _LAYER_FIELDS and value:
            settings[name] = _value(value)
        else:
            known = ", ".join([*SCHEMES, "columns", *sorted(_LAYER_FIELDS | _COLUMN_FIELDS - {"ratio"})])
            raise ValueError(
                f"imposed sparsity {text!r} has the item {item!r}; expected one of {known}, with =VALUE"
            )
    return settings | ({"columns": columns} if columns else {})


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text.lower(), text)
