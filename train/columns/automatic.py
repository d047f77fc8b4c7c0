"""`granularity: auto`: per layer, the units of columns that the kernels execute best, found by measuring.

Which units skip work depends on the algorithm that runs a layer (Winograd skips whole tiles, direct
convolution whole vectors, im2col single pixels at the price of gathering them), and that on its shape, on the
sparsity of its weights and on the processor. So every layer is timed with a mask of each granularity at the
recipe's ratio, its weights as sparse as the recipe makes them, and gets the *finest* granularity that is
within `TOLERANCE` of the fastest: finer units cost less accuracy. Where even the fastest gains less than that
over the layer without a mask, all columns stay: removing some would cost accuracy for nothing. Layers that
are alike are measured once.

Layers of one network may get different granularities. Scores do not depend on them: a unit's score is the
mean over its columns, so masks of neighbouring layers still agree on the regions that go, to within the size
of a unit.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semisparse import tuning_file
from semisparse.converted import pack_weight
from semisparse.latency import compare
from semisparse.recipe import AUTO, GRANULARITIES, Columns, Recipe

from .. import distributed
from ..weights.sparsity import WeightSparsity
from .coherence import propagate
from .granularity import make_mask

# A finer granularity may be this much slower than the fastest one.
TOLERANCE = 0.05
# Units that miss the ratio by more than this share of it (large units on small maps) are no choice.
MISS = 1 / 3
DENSE = "dense"  # the label of the layer without a mask


@dataclass(frozen=True)
class Choice:
    """What was measured of one layer.

    Attributes:
        granularity: what it gets; None if all columns stay.
        ms: milliseconds on one thread, by granularity; `dense` is the layer without a mask.
        machine: where, as `semisparse.tuning_file.machine` names it.
    """

    granularity: str | None
    ms: dict[str, float]
    machine: str

    @property
    def gain(self) -> float:
        """How many times faster than without a mask."""
        return self.ms[DENSE] / self.ms[self.granularity or DENSE]

    def settings(self) -> dict:
        """For `columns` of the layer in a recipe."""
        return {"ratio": 0.0} if self.granularity is None else {"granularity": self.granularity}

    def __str__(self) -> str:
        dense = self.ms[DENSE]
        if self.granularity is None:
            fastest = min(time for label, time in self.ms.items() if label != DENSE)
            return f"auto: all columns stay ({dense:.3f} ms; without some of them, {fastest:.3f} ms)"
        return f"auto: {self.gain:.2f}x its dense {dense:.3f} ms"


def fix_granularity(
    model: nn.Module, recipe: Recipe, example_input: Tensor, *, rounds: int = 15
) -> tuple[Recipe, dict[str, Choice]]:
    """Replace `granularity: auto` by what is measured on this machine, on one thread.

    Under DistributedDataParallel, rank 0 measures and all ranks get its result.

    Args:
        model: is left as it is.
        example_input: a batch (N, C, H, W) of the size to train at.
        rounds: interleaved visits to every variant of a layer.

    Returns:
        A recipe that names the granularity of each such layer, or ratio 0 where all columns stay, and what
        was measured of them. The same recipe and nothing, if no layer's granularity is `auto`.

    Raises:
        ValueError: recipe and model do not fit.
        RuntimeError: a layer cannot be timed here.
    """
    layers = recipe.resolve(model)
    automatic = [
        name
        for name, layer in layers.items()
        if layer.columns.ratio > 0 and layer.columns.granularity == AUTO
    ]
    if not automatic:
        return recipe, {}
    timings = _timings(model, recipe, automatic, example_input, rounds)
    table = torch.full((len(automatic), len(_LABELS)), torch.nan, dtype=torch.float64)
    error: Exception | None = None
    if distributed.rank() == 0:
        try:
            known: dict[tuple, dict[str, float]] = {}
            for row, (alike, timing) in zip(table, timings, strict=True):
                ms = known[alike] = known.get(alike) or timing()
                row.copy_(torch.tensor([ms.get(label, torch.nan) for label in _LABELS]))
        except Exception as reason:  # the other ranks wait for the table: tell them first
            error = reason
            table.fill_(torch.nan)
    distributed.broadcast_(table)
    if bool(table.isnan().all()):
        raise RuntimeError(
            f"columns.granularity auto could not be measured here ({error or 'see the message of rank 0'}); "
            f"name one of {', '.join(GRANULARITIES)} in the recipe, or let `semisparse granularity` write "
            "them into it on another machine"
        ) from error
    where = tuning_file.machine()
    choices = {}
    for name, row in zip(automatic, table.tolist(), strict=True):
        ms = {label: time for label, time in zip(_LABELS, row, strict=True) if time == time}
        choices[name] = Choice(choose(ms), ms, where)
    return recipe.with_columns({name: choice.settings() for name, choice in choices.items()}), choices


def choose(ms: dict[str, float]) -> str | None:
    """The finest granularity within `TOLERANCE` of the fastest, of those that were timed; None if that one is
    not faster than `dense` by as much."""
    times = {name: ms[name] for name in GRANULARITIES if name in ms}
    fastest = min(times.values())
    if ms[DENSE] <= (1 + TOLERANCE) * fastest:
        return None
    return next(name for name, time in times.items() if time <= (1 + TOLERANCE) * fastest)


_LABELS = (DENSE, *GRANULARITIES)


def _timings(
    model: nn.Module, recipe: Recipe, names: list[str], example_input: Tensor, rounds: int
) -> list[tuple[tuple, Callable[[], dict[str, float]]]]:
    """For each of the layers `names`, what is the same for layers that are alike, and what times it."""
    sparse = copy.deepcopy(model).cpu().eval()
    settings = recipe.at_once().resolve(sparse)
    inputs = _input_sizes(sparse, names, example_input[:1].cpu())
    weighted = {name: layer for name, layer in settings.items() if layer.sparse_weights}
    WeightSparsity(sparse, weighted, None).finalize()  # on all ranks: they agree on its choices
    timings = []
    for name in names:
        module, layer = sparse.get_submodule(name), settings[name]
        # When the mask changes has no influence on the time.
        columns = dataclasses.replace(layer.columns, criterion="random", every=None)
        alike = (repr(module), inputs[name], dataclasses.replace(layer, columns=columns))
        timings.append((alike, functools.partial(_time, module, columns, inputs[name], rounds)))
    return timings


def _time(module: nn.Conv2d, columns: Columns, input_size: tuple[int, ...], rounds: int) -> dict[str, float]:
    """Milliseconds by granularity, of those that can meet the ratio."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(input_size, generator=generator)
    call = _call(module, x, None)
    size = tuple(call().shape[-2:])
    # Smooth scores, as a map of the network's input gives them to its deeper layers.
    scores = propagate(torch.rand(2 * size[0], 2 * size[1], generator=generator), size)
    masks: dict[str, Tensor | None] = {DENSE: None}
    for granularity in GRANULARITIES:
        mask = make_mask(scores, columns.ratio, granularity, columns.round_to)
        removed = 1 - mask.double().mean().item()
        if granularity == GRANULARITIES[0] or abs(removed - columns.ratio) <= MISS * columns.ratio:
            masks[granularity] = mask
    found = compare({label: _call(module, x, mask) for label, mask in masks.items()}, rounds=rounds)
    return {label: latency.median for label, latency in found.latency.items()}


def _call(module: nn.Conv2d, x: Tensor, mask: Tensor | None) -> Callable[[], Tensor]:
    """The layer with an activation, as deployment runs it; padding by other values takes as long as zeros."""
    weight, padding = module.weight.detach(), module.padding
    if isinstance(padding, str):
        same = [d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding = same if padding == "same" else [0, 0]
    packed, shape, fill = pack_weight(weight, module.groups), list(weight.shape), torch.zeros(len(weight))
    bias = fill if module.bias is None else module.bias.detach()
    arguments = (bias, list(module.stride), list(padding), list(module.dilation), module.groups)
    run = torch.ops.semisparse.conv2d.packed
    if mask is None:
        return lambda: run(x, packed, shape, *arguments, activation="relu")
    return lambda: run(x, packed, shape, *arguments, mask=mask, fill=fill, activation="relu")


def _input_sizes(model: nn.Module, names: list[str], example_input: Tensor) -> dict[str, tuple[int, ...]]:
    """Shapes (1, C, H, W) of what the layers get."""
    sizes: dict[str, tuple[int, ...]] = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: sizes.__setitem__(name, tuple(args[0].shape))
        )
        for name in names
    ]
    with torch.no_grad():
        model(example_input)
    for handle in handles:
        handle.remove()
    return sizes
