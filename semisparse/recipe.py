"""Recipes: what sparsity training arranges, layer by layer, as data that round-trips to YAML.

A recipe maps layers to settings::

    _default:                       # every layer that _skip does not exclude
      scheme: pattern
      columns: {ratio: 0.2, granularity: pixel, criterion: saliency, begin: 0.1, end: 0.6}
    _1x1:                           # every layer of a kind: _3x3 (any kernel), _depthwise, _stem, _linear
      {scheme: block, ratio: 0.5}
    _skip: [stem, depthwise, linear]
    layer4.1.conv2:                 # one layer by its name in model.named_modules()
      columns: {ratio: 0.1}
    "re:layer1\\\\..*":               # every layer whose whole name matches
      columns: {ratio: 0.4}

An entry changes the fields that it names and inherits the others: `_default`, then the kinds (kernel size,
`_depthwise`, `_stem`, `_linear`), then the `re:` entries in the order of the file, then the entry with the
layer's own name. A layer that an entry names by its own name is not skipped. Without `_skip`, the kinds of
`SKIP_RULES` that have no entry are skipped. Ratios are always the fraction removed.

Where `_default` says `pattern` and a layer's kernel is not 3x3, the layer gets `block` (1x1, linear) or
`block_punched` (other kernels) at the ratio of patterns and connectivity together.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from semisparse._files import replace_atomically

SCHEMES = ("dense", "pattern", "block_punched", "block", "structured", "unstructured")
BOX_SCHEMES = SCHEMES[2:]  # what is removed are boxes of weights, a `ratio` of them
GRANULARITIES = ("pixel", "run4", "run8", "run16", "tile4x4")  # the finest first
AUTO = "auto"  # the finest that is about as fast as the fastest: measured
CRITERIA = ("saliency", "held_out", "coherent_random", "random")
METHODS = ("admm", "magnitude", "reweighted")
SCOPES = ("layer", "global")
AXES = ("filters", "channels", "both")
SKIP_RULES = ("1x1", "stem", "depthwise", "linear")
REGEX = "re:"
_KIND = re.compile(r"_(\d+x\d+|depthwise|stem|linear)")
# Fields that only some schemes or methods look at.
_USED_BY = {
    "ratio": ("scheme", BOX_SCHEMES),
    "scope": ("scheme", BOX_SCHEMES),
    "axis": ("scheme", ("structured", "block")),
    "block": ("scheme", ("block_punched", "block")),
    "patterns": ("scheme", ("pattern",)),
    "entries": ("scheme", ("pattern",)),
    "rho": ("method", ("admm",)),
    "strength": ("method", ("reweighted",)),
}


@dataclass(frozen=True)
class Columns:
    """Column sparsity of one convolution: output pixels that are not computed, shared by channels and batch.

    Attributes:
        ratio: fraction of the columns removed in the end, in [0, 1).
        granularity: what is removed together: `pixel`; `run4`, `run8`, `run16` (aligned runs of consecutive
            columns, row-major, as they lie in the im2col matrix); `tile4x4` (aligned squares of output
            pixels). `auto`: of these, for each layer, the finest that is about as fast as the fastest on the
            machine where training begins, measured there (`semisparse.train.columns.automatic`); none of the
            columns where that is no faster than all of them. `semisparse granularity` measures without
            training, for instance on the machine that is deployed to.
        criterion: `saliency` (learned), `held_out` (candidates, learned and random ones, compared on batches
            that are not trained on), `coherent_random` (Grimaldi et al. 2023) or `random`.
        begin, end: when removal starts and when masks freeze, as fractions of the training steps.
        initial: fraction removed at `begin`.
        every: optimiser steps between two selections of the mask; None leaves it to the criterion.
        round_to: the kept count is rounded to a multiple of this many columns (lanes x vectors of the
            target's register tile), so that no panel of the GEMM is left partly empty.
        scope: `layer`, or `global`: `ratio` is the fraction of the multiplications that go of all layers with
            the same ratio and schedule together; each loses a share of its own, by its saliency
            (`semisparse.train.columns.allocation`), at most twice the ratio.
    """

    ratio: float = 0.0
    granularity: str = "pixel"
    criterion: str = "saliency"
    begin: float = 0.1
    end: float = 0.6
    initial: float = 0.0
    every: int | None = None
    round_to: int = 1
    scope: str = "layer"


@dataclass(frozen=True)
class LayerRecipe:
    """Settings of one layer. `columns` concerns its output pixels, everything else its weights.

    Attributes:
        scheme: structure of the weights that stay, one of `SCHEMES`.
        ratio: fraction of the weights removed in the end, in [0, 1); 0 switches the scheme off. `pattern`
            removes 1 - entries/9 instead. With `reweighted` it counts as with `scope: global`, and leaving
            it out lets training find how much goes.
        scope: `layer`, or `global`: `ratio` is the fraction of the multiplications that go of all layers with
            the same scheme, ratio, method, begin and end together; each loses a share of its own.
        axis: what `structured` and `block` remove: `filters`, `channels` or `both`; None for the scheme's
            own, which is filters for `structured` and channels for `block`.
        block: filters x channels of the block schemes. Left out, it is cut to the size of small layers.
        patterns: size of the pattern library.
        entries: weights that each pattern keeps.
        connectivity: fraction of the kernels (filter, channel) removed as a whole, in [0, 1); on top of any
            scheme of a convolution, or alone (`dense`).
        group: filters that share patterns and removed kernels; 4 fill a register tile.
        reorder: choose similar filters to share, instead of neighbours in the weight.
        method: how training gets there: `admm`, `magnitude` (gradual) or `reweighted`.
        begin, end: when it starts and when the masks freeze, as fractions of the training steps; what is left
            is retraining with fixed masks.
        every: optimiser steps between two updates of the method; None leaves it to the method.
        rho: penalty parameter of `admm` at `end`; it begins at a thousandth of that.
        strength: of `reweighted`: between begin and end, strong weights would shrink to exp(-strength), and
            weaker ones to less, if the loss did not hold them. With a ratio, only the initial value.
        columns: see `Columns`.
    """

    scheme: str = "dense"
    ratio: float = 0.0
    scope: str = "layer"
    axis: str | None = None
    block: tuple[int, int] = (8, 4)
    patterns: int = 8
    entries: int = 4
    connectivity: float = 0.0
    group: int = 1
    reorder: bool = True
    method: str = "admm"
    begin: float = 0.0
    end: float = 0.5
    every: int | None = None
    rho: float = 1.0
    strength: float = 1.0
    columns: Columns = field(default_factory=Columns)

    @property
    def sparse_weights(self) -> bool:
        """Whether any weight is to be removed."""
        if self.scheme == "dense":
            return self.connectivity > 0
        return (
            self.scheme == "pattern" or self.method == "reweighted" or max(self.ratio, self.connectivity) > 0
        )


class Recipe:
    """Settings for the layers of a model; equal recipes are ==.

    Args:
        entries: `_default`, kinds (`_1x1`), `_skip`, layer names and `re:` expressions to settings, as in the
            YAML form.

    Raises:
        ValueError: an unknown field or word, or a value out of range; names the layer, the value, the remedy.
    """

    def __init__(self, entries: Mapping[str, Any] | None = None):
        entries = {} if entries is None else entries
        if not isinstance(entries, Mapping):
            raise ValueError(f"a recipe maps layer names to settings, but this is a {type(entries).__name__}")
        entries = dict(entries)
        skip = entries.pop("_skip", [rule for rule in SKIP_RULES if f"_{rule}" not in entries])
        if not isinstance(skip, (list, tuple)) or not all(isinstance(item, str) for item in skip):
            raise ValueError(
                f"_skip is {skip!r}, expected a list of {', '.join(SKIP_RULES)}, layer names or re: "
                "expressions"
            )
        self.skip: tuple[str, ...] = tuple(skip)
        self._entries: dict[str, dict] = {}
        for name, settings in entries.items():
            if not isinstance(name, str):
                raise ValueError(f"the layer name {name!r} is not text; quote it")
            if name.startswith("_") and name != "_default" and not _KIND.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not part of a recipe; expected _default, _skip, a kind such as _1x1, "
                    "_depthwise, _stem or _linear, layer names or re: expressions"
                )
            if name.startswith("_") and name[1:] in self.skip:
                raise ValueError(f"{name} has settings, but _skip excludes {name[1:]}; remove one of the two")
            self._entries[name] = _plain(name, settings)
        for name in (*self._entries, *self.skip):
            if name.startswith(REGEX):
                try:
                    re.compile(name[len(REGEX) :])
                except re.error as error:
                    raise ValueError(f"{name!r} is not a valid regular expression: {error}") from error
        for name, settings in self._entries.items():  # every entry must make sense on top of the defaults
            _layer_recipe(name, _merge(self._entries.get("_default", {}), settings))
            _check_used(name, settings)

        schemes = {settings.get("scheme", "dense") for settings in self._entries.values()}
        for name, settings in self._entries.items():
            if settings.get("ratio") and schemes <= {"dense"}:
                raise ValueError(
                    f"{name}: ratio is {settings['ratio']}, but no entry names a scheme, so nothing would be "
                    f"removed; add scheme: {', '.join(BOX_SCHEMES[:-1])} or {BOX_SCHEMES[-1]}"
                )

    # -- lookup ---------------------------------------------------------------------------------------------
    def layer(self, name: str, kinds: Sequence[str] = ()) -> LayerRecipe:
        """The settings of the layer called `name`, inheritance resolved, skip rules not applied.

        kinds: what the layer is (`1x1`, `depthwise`, ...), the most specific last.
        """
        return _layer_recipe(name, self._merged(name, kinds))

    def _merged(self, name: str, kinds: Sequence[str], first: str = "_default") -> dict:
        """All that the entries from `first` on say about a layer."""
        settings = self._entries.get("_default", {}) if first == "_default" else {}
        for kind in kinds:
            settings = _merge(settings, self._entries.get(f"_{kind}", {}))
        for pattern, override in self._entries.items():
            if pattern.startswith(REGEX) and re.fullmatch(pattern[len(REGEX) :], name):
                settings = _merge(settings, override)
        return _merge(settings, self._entries.get(name, {}))

    def resolve(self, model: nn.Module) -> dict[str, LayerRecipe]:
        """The settings of every Conv2d and Linear of `model` that the recipe makes sparse, in model order.

        Raises ValueError if an entry matches no layer, or asks of a layer what it cannot have.
        """
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear))
        }
        for name in (*self._entries, *(item for item in self.skip if item not in SKIP_RULES)):
            self._check_exists(name, layers)
        stem = next((name for name, module in layers.items() if isinstance(module, nn.Conv2d)), None)
        resolved = {}
        for name, module in layers.items():
            kinds = _kinds(module, name == stem)
            if name not in self._entries and self._skipped(name, kinds):
                continue
            settings = self._fitted(name, module, kinds)
            if settings.columns.ratio > 0 or settings.sparse_weights:
                resolved[name] = settings
        return resolved

    def _skipped(self, name: str, kinds: Sequence[str]) -> bool:
        return any(
            item in kinds
            or item == name
            or (item.startswith(REGEX) and re.fullmatch(item[len(REGEX) :], name))
            for item in self.skip
        )

    def _fitted(self, name: str, module: nn.Module, kinds: Sequence[str]) -> LayerRecipe:
        """The settings of one layer, brought to its shape where they are defaults.

        Raises ValueError where they name something that the layer cannot have.
        """
        given, named = self._merged(name, kinds), self._merged(name, kinds, first="kinds")
        settings = _layer_recipe(name, given)
        linear, kernel = isinstance(module, nn.Linear), tuple(getattr(module, "kernel_size", (1, 1)))
        filters, channels = module.weight.shape[0] // getattr(module, "groups", 1), module.weight.shape[1]
        if linear:
            if named.get("columns", {}).get("ratio", 0) > 0:
                raise ValueError(
                    f"{name}: columns are output pixels, which a linear layer does not have; remove the entry"
                )
            if named.get("connectivity", 0) > 0:
                raise ValueError(
                    f"{name}: connectivity removes kernels of a convolution, this layer is linear; "
                    "use scheme 'block' with a ratio"
                )
            settings = dataclasses.replace(settings, columns=Columns())
        if settings.scheme == "pattern" and kernel != (3, 3):
            box = "block" if kernel == (1, 1) else "block_punched"
            if named.get("scheme") == "pattern":
                raise ValueError(
                    f"{name}: scheme 'pattern' is for 3x3 kernels, and this layer "
                    f"{'is linear' if linear else 'has ' + 'x'.join(map(str, kernel))}; use '{box}'"
                )
            kept = settings.entries / 9 * (1 - settings.connectivity)
            settings = dataclasses.replace(settings, scheme=box, ratio=1 - kept, connectivity=0.0)
        if linear:
            settings = dataclasses.replace(settings, connectivity=0.0)
        if settings.scheme == "block" and kernel != (1, 1):
            raise ValueError(f"{name}: scheme 'block' is for linear and 1x1 layers; use 'block_punched'")
        if settings.scheme in BOX_SCHEMES and settings.ratio == 0 and settings.method != "reweighted":
            if "ratio" not in given and settings.connectivity == 0:
                raise ValueError(
                    f"{name}: scheme {settings.scheme!r} needs a ratio, the fraction of the weights removed; "
                    "name one, or scheme: dense for none"
                )
            settings = dataclasses.replace(settings, scheme="dense")
        if settings.scheme in ("block", "block_punched"):
            if "block" in given and (settings.block[0] > filters or settings.block[1] > channels):
                raise ValueError(
                    f"{name}: block {list(settings.block)} is larger than the layer, which has {filters} "
                    f"filters x {channels} channels{_per_group(module)}; name a smaller block for it"
                )
            block = (min(settings.block[0], filters), min(settings.block[1], channels))
            settings = dataclasses.replace(settings, block=block)
        if settings.scheme in BOX_SCHEMES and settings.connectivity == 0:
            settings = dataclasses.replace(settings, group=1)  # boxes say by themselves which filters share
        if settings.sparse_weights and settings.group > filters:
            raise ValueError(
                f"{name}: group {settings.group} is larger than the layer, which has {filters} "
                f"filters{_per_group(module)}; name a smaller group for it"
            )
        return settings

    def _check_exists(self, name: str, layers: Mapping[str, nn.Module]) -> None:
        if name.startswith("_") or name in layers:
            return
        known = ", ".join(list(layers)[:6]) + (", ..." if len(layers) > 6 else "")
        if not name.startswith(REGEX):
            raise ValueError(
                f"the recipe names the layer {name!r}, which the model has not as Conv2d or Linear; its "
                f"layers are {known}"
            )
        if not any(re.fullmatch(name[len(REGEX) :], layer) for layer in layers):
            raise ValueError(
                f"the recipe's expression {name!r} matches no layer as a whole; the model's layers are "
                f"{known}"
            )

    @property
    def removes_columns(self) -> bool:
        """Whether any entry removes columns. Whether a model has such layers, `resolve` says."""
        return any(settings.get("columns", {}).get("ratio", 0) > 0 for settings in self._entries.values())

    def override(self, *assignments: str) -> Recipe:
        """A recipe with fields of `_default` replaced: `override("columns.ratio=0.3", "columns.begin=0")`."""
        entries = self.to_dict()
        for assignment in assignments:
            path, equals, value = assignment.partition("=")
            *parents, key = path.strip().split(".")
            if not equals or not key or parents not in ([], ["columns"]):
                raise ValueError(
                    f"the setting {assignment!r} is not of the form FIELD=VALUE or columns.FIELD=VALUE"
                )
            settings = entries.setdefault("_default", {})
            for parent in parents:
                settings = settings.setdefault(parent, {})
            settings[key] = _yaml().safe_load(value)
        return Recipe(entries)

    def with_columns(self, settings: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """A recipe with fields of `columns` replaced in some layers, by layer name."""
        entries = self.to_dict()
        for name, columns in settings.items():
            entry = entries.setdefault(name, {})
            entry["columns"] = {**entry.get("columns", {}), **columns}
        return Recipe(entries)

    def at_once(self) -> Recipe:
        """The same sparsity without schedules, by the quickest way to choose: weights by magnitude, columns
        at random. What it makes of a network takes as long to run as what training would make of it."""
        entries = self.to_dict()
        now = {"begin": 0.0, "end": 0.0}  # everything from the first step on
        random = {"criterion": "coherent_random", "scope": "layer"}
        for name, settings in entries.items():
            if name == "_skip":
                continue
            if name == "_default" or "method" in settings:
                settings["method"] = "magnitude"
                settings.pop("rho", None)
                settings.pop("strength", None)
            if name == "_default" or "reorder" in settings:
                settings["reorder"] = False
            if name == "_default" or "begin" in settings or "end" in settings:
                settings |= now
            if "columns" in settings:
                settings["columns"] = settings["columns"] | now | random
        entries.setdefault("_default", {"method": "magnitude", "reorder": False, **now})
        return Recipe(entries)

    # -- data -----------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings; `Recipe(recipe.to_dict()) == recipe`."""
        return {
            **{name: _copy(settings) for name, settings in self._entries.items()},
            "_skip": list(self.skip),
        }

    def to_yaml(self) -> str:
        return _yaml().safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)

    @classmethod
    def from_yaml(cls, text: str, source: str = "the recipe") -> Recipe:
        yaml = _yaml()
        try:
            entries = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{source} is not valid YAML: {error}") from error
        try:
            return cls(entries)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    def save(self, path: str | os.PathLike) -> None:
        with replace_atomically(path) as file:
            file.write(self.to_yaml().encode())

    @classmethod
    def load(cls, recipe: str | os.PathLike) -> Recipe:
        """Read a YAML file, or a shipped recipe by its name (`Recipe.shipped()` lists them)."""
        path = Path(recipe)
        if path.is_file():
            return cls.from_yaml(path.read_text(encoding="utf-8"), str(path))
        name = str(recipe).removesuffix(".yaml")
        if name in cls.shipped():
            text = (resources.files("semisparse") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
            return cls.from_yaml(text, name)
        raise ValueError(
            f"recipe {str(recipe)!r} is neither a file nor one of the shipped recipes "
            f"{', '.join(cls.shipped())}"
        )

    @staticmethod
    def shipped() -> list[str]:
        """Names of the recipes that come with the package."""
        folder = resources.files("semisparse") / "recipes"
        return sorted(
            item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Recipe({self.to_dict()!r})"


def _yaml():
    try:
        import yaml
    except ImportError as error:
        raise RuntimeError(
            "recipes in YAML need PyYAML: pip install pyyaml; or build Recipe({...}) in Python"
        ) from error
    return yaml


def _copy(value):
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return list(value) if isinstance(value, (list, tuple)) else value


def _merge(base: dict, override: dict) -> dict:
    merged = {**base, **override}
    if isinstance(base.get("columns"), dict) and isinstance(override.get("columns"), dict):
        merged["columns"] = {**base["columns"], **override["columns"]}
    return merged


def _plain(name: str, settings: Any) -> dict:
    """The settings of one entry as plain data; their fields must exist."""
    if isinstance(settings, LayerRecipe):
        settings = dataclasses.asdict(settings)
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"{name}: the settings are {settings!r}, expected a mapping such as {{columns: {{ratio: 0.2}}}}"
        )
    settings = _copy(settings)
    columns = settings.get("columns")
    if isinstance(columns, Columns):
        columns = settings["columns"] = dataclasses.asdict(columns)
    if columns is None and "columns" in settings:
        columns = settings["columns"] = {"ratio": 0.0}
    if columns is not None and not isinstance(columns, dict):
        raise ValueError(f"{name}: columns is {columns!r}, expected a mapping such as {{ratio: 0.2}}")
    for given, known, where in ((settings, LayerRecipe, ""), (columns or {}, Columns, "columns.")):
        fields = [f.name for f in dataclasses.fields(known)]
        for key in given:
            if key not in fields:
                raise ValueError(f"{name}: {where}{key} is unknown; choose among {', '.join(fields)}")
    return settings


def _layer_recipe(name: str, settings: dict) -> LayerRecipe:
    """Validated settings."""
    columns = settings.get("columns", {})
    for key in ("ratio", "begin", "end", "initial"):
        if key in columns:
            columns = {**columns, key: _number(f"{name}: columns.{key}", columns[key])}
    column = Columns(**columns)
    block = settings.get("block", LayerRecipe.block)
    if not isinstance(block, (list, tuple)) or len(block) != 2 or not all(_whole(side) for side in block):
        raise ValueError(f"{name}: block is {block!r}, expected [filters, channels], both at least 1")
    layer = LayerRecipe(**{**settings, "columns": column, "block": tuple(block)})
    _choice(f"{name}: scheme", layer.scheme, SCHEMES)
    _choice(f"{name}: scope", layer.scope, SCOPES)
    if layer.axis is not None:
        _choice(f"{name}: axis", layer.axis, AXES)
    _choice(f"{name}: method", layer.method, METHODS)
    if not isinstance(layer.reorder, bool):
        raise ValueError(f"{name}: reorder is {layer.reorder!r}, expected true or false")
    for key in ("rho", "strength"):
        if not _number(f"{name}: {key}", getattr(layer, key)) > 0:
            raise ValueError(f"{name}: {key} is {getattr(layer, key)}, expected a number above 0")
    _choice(f"{name}: columns.granularity", column.granularity, (*GRANULARITIES, AUTO))
    _choice(f"{name}: columns.criterion", column.criterion, CRITERIA)
    _choice(f"{name}: columns.scope", column.scope, SCOPES)
    for key, value in (
        ("ratio", layer.ratio),
        ("connectivity", layer.connectivity),
        ("columns.ratio", column.ratio),
        ("columns.initial", column.initial),
    ):
        if not 0 <= _number(f"{name}: {key}", value) < 1:
            raise ValueError(
                f"{name}: {key} is {value}, expected a fraction removed in [0, 1); something must stay"
            )
    for part, where in ((layer, ""), (column, "columns.")):
        begin, end = (_number(f"{name}: {where}{key}", getattr(part, key)) for key in ("begin", "end"))
        if not 0 <= begin <= end <= 1:
            raise ValueError(
                f"{name}: {where}begin {begin} and {where}end {end} must be fractions of the "
                "training steps with 0 <= begin <= end <= 1"
            )
    if column.initial > column.ratio > 0:
        raise ValueError(
            f"{name}: columns.initial {column.initial} is above columns.ratio {column.ratio}; removal "
            "only grows"
        )
    for key, value in (
        ("patterns", layer.patterns),
        ("entries", layer.entries),
        ("group", layer.group),
        ("columns.round_to", column.round_to),
        ("every", layer.every),
        ("columns.every", column.every),
    ):
        if not _whole(value) and not (value is None and key.endswith("every")):
            raise ValueError(f"{name}: {key} is {value!r}, expected a whole number of at least 1")
    _check_combination(name, layer)
    return layer


def _check_combination(name: str, layer: LayerRecipe) -> None:
    """Raise ValueError for settings that are fine one by one but make no sense together."""
    if layer.scheme == "pattern":
        if layer.entries > 8:
            raise ValueError(
                f"{name}: entries is {layer.entries}, but a pattern keeps 1 to 8 of the 9 weights of a 3x3 "
                "kernel; use scheme 'dense' to keep all"
            )
        candidates = math.comb(8, layer.entries - 1)
        if layer.patterns > candidates:
            raise ValueError(
                f"{name}: patterns is {layer.patterns}, but there are only {candidates} of "
                f"{layer.entries} entries with the centre; use {candidates} or less"
            )
    if layer.method == "reweighted":
        if layer.scheme == "pattern" or layer.connectivity > 0:
            what = "scheme 'pattern'" if layer.scheme == "pattern" else "connectivity"
            raise ValueError(
                f"{name}: method 'reweighted' penalises boxes of weights, which {what} has not; use method "
                f"'admm', or one of the schemes {', '.join(BOX_SCHEMES)} without connectivity"
            )
    if layer.columns.scope == "global" and layer.columns.criterion != "saliency":
        raise ValueError(
            f"{name}: columns.scope 'global' compares layers by saliency, and columns.criterion "
            f"{layer.columns.criterion!r} does not measure it; use criterion saliency, or scope layer"
        )
    if layer.scope == "global" and layer.axis == "both":
        raise ValueError(
            f"{name}: scope 'global' compares boxes of one kind, and axis 'both' has two; "
            "name the axis filters or channels"
        )


def _check_used(name: str, settings: dict) -> None:
    """Raise ValueError if an entry names a scheme or method, and beside it a field that this one ignores."""
    for key, (by, users) in _USED_BY.items():
        chosen = settings.get(by)
        if chosen is None or chosen in users or key not in settings:
            continue
        default = getattr(LayerRecipe, key)
        value = tuple(settings[key]) if isinstance(settings[key], list) else settings[key]
        if value != default:
            remedy = "remove it"
            if (key, chosen) == ("ratio", "pattern"):
                remedy = "set entries: patterns remove 1 - entries/9"
            raise ValueError(
                f"{name}: {key} is for the {by}s {', '.join(users)}, not for {chosen!r}; {remedy}"
            )


def _kinds(module: nn.Module, stem: bool) -> tuple[str, ...]:
    """Which kinds of layer `module` is, the most specific last."""
    if isinstance(module, nn.Linear):
        return ("linear",)
    kinds = ["x".join(map(str, module.kernel_size))]
    if module.groups > 1 and module.groups == module.in_channels:
        kinds.append("depthwise")
    return (*kinds, "stem") if stem else tuple(kinds)


def _per_group(module: nn.Module) -> str:
    return f" in each of its {module.groups} groups" if getattr(module, "groups", 1) > 1 else ""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} is {value!r}, expected a number")
    return value


def _choice(what: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} is {value!r}, expected one of {', '.join(choices)}")
