"""Tuning on the machine at hand: which algorithm runs each layer, found by measuring (PatDNN, section 5.5).

The result is data beside the model (`semisparse.tuning_file`), of which `semisparse.load` and
`semisparse.runtime.load` apply what was measured on their machine. The weights stay portable: nothing of this
is in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from semisparse import algorithms
from semisparse.converted import ConvertedModel
from semisparse.explain import chosen_algorithm
from semisparse.images import random_image, select
from semisparse.io import load
from semisparse.preferences import apply, checksums, packed_weights, prefer
from semisparse.sized import SizedModel
from semisparse.stepwise import PACKED_CONVOLUTION, fixed_threads, input_sizes, time_steps
from semisparse.tuning_file import LayerTuning, Tuning, machine, read, write

__all__ = ["apply", "tune", "tune_file"]

# A choice changes only where it is clearly faster: otherwise noise would choose.
MARGIN = 0.03


def tune(
    model: ConvertedModel,
    example_input: Tensor | Sequence[Tensor],
    *,
    threads: int | None = None,
    rounds: int = 15,
    progress: Callable[[str], object] = lambda text: None,
) -> Tuning:
    """Measure every algorithm on every layer, inside the network, and find the fastest of each.

    The choice is not applied: see `apply`.

    Args:
        example_input: tensor or tensors that forward takes; sizes count.
        threads: None for the present setting of torch.
        rounds: timed passes with each algorithm.
        progress: is told what happens.

    Raises:
        ValueError: a model that is not converted, or a count below 1.
    """
    if not isinstance(model, ConvertedModel):
        raise ValueError(f"tune takes a converted model, and this is a {type(model).__name__}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    inputs = [example_input] if isinstance(example_input, Tensor) else list(example_input)
    with fixed_threads(threads) as used:
        sizes = input_sizes(model, inputs)
        progress(f"each algorithm on each layer: {rounds} rounds")
        _forget(model, sizes)
        defaults = _chosen(model, sizes)
        tunable = _tunable(model, sizes)
        names = [name for name in algorithms.ALGORITHMS if any(name in c for c in tunable.values())]
        times = time_steps({name: (model, _forcing(name)) for name in names}, inputs, rounds=rounds)
        layers = []
        for (node, name, checksum), candidates in tunable.items():
            ms = {algorithm: times[algorithm][node] for algorithm in candidates}
            best, default = min(ms, key=ms.__getitem__), defaults[node]
            if ms[best] > (1 - MARGIN) * ms[default]:
                best = default
            layers.append(LayerTuning(name, checksum, sizes[node], default, best, ms))
        progress("default against tuned")

        @contextlib.contextmanager
        def tuned() -> Iterator[None]:
            prefer(weights, layers)
            yield
            _forget(model, sizes)

        weights = packed_weights(model)
        both = {"default": (model, contextlib.nullcontext), "tuned": (model, tuned)}
        whole = {k: sum(v.values()) for k, v in time_steps(both, inputs, rounds=rounds).items()}
    if whole["tuned"] > whole["default"]:  # what looked faster layer by layer was noise
        layers = [dataclasses.replace(layer, algorithm=layer.default) for layer in layers]
        whole["tuned"] = whole["default"]
    return Tuning(machine(), used, tuple(layers), whole["default"], whole["tuned"])


def tune_file(
    path: str | os.PathLike,
    size: int | None = None,
    *,
    threads: int | None = None,
    rounds: int = 15,
    again: bool = False,
    progress: Callable[[str], object] = lambda text: None,
) -> tuple[Tuning, bool]:
    """Tune a model file and store the result beside it; a `SizedModel` at each of its sizes.

    Args:
        size: side of the image, where the model leaves it free.
        again: measure even if the file has a tuning of these layers for this machine and number of threads.

    Returns:
        The tuning, and whether it was measured now.

    Raises:
        ValueError: the model or the tuning beside it is damaged, or the model does not take such an image.
    """
    model = load(path, tuned=False)
    models = list(model.models) if isinstance(model, SizedModel) and size is None else [select(model, size)]
    images = [random_image(one, size) for one in models]
    wanted = threads or torch.get_num_threads()
    known = read(path, wanted)
    if known is not None and known.threads == wanted and not again:
        have = {(layer.checksum, layer.input_size) for layer in known.layers}
        want = set()
        for one, image in zip(models, images, strict=True):
            sizes = input_sizes(one, [image])
            want |= {(checksum, sizes[node]) for node, _, checksum in _tunable(one, sizes)}
        if want <= have:
            return known, False
    found = [
        tune(one, image, threads=threads, rounds=rounds, progress=progress)
        for one, image in zip(models, images, strict=True)
    ]
    layers = tuple(layer for one in found for layer in one.layers)
    total = Tuning(
        found[0].machine, found[0].threads, layers, sum(t.ms_default for t in found), sum(t.ms for t in found)
    )
    write(path, total)
    return total, True


def _convolutions(model: ConvertedModel) -> list[tuple[str, str, int]]:
    """(node, layer, checksum of the weight) of every packed convolution."""
    by_name, layers = checksums(model), {record.node: record.name for record in model.layers}
    return [
        (node.name, layers.get(node.name, node.name), by_name[node.args[1].name])
        for node in model.graph.nodes
        if node.op == PACKED_CONVOLUTION
    ]


def _forget(model: ConvertedModel, sizes: dict[str, tuple[int, int]]) -> None:
    """Take back the preferences of all layers."""
    for node in model.graph.nodes:
        if node.name in sizes:
            packed = model.get_buffer(node.args[1].name)
            algorithms.prefer(packed, sizes[node.name], algorithms.AUTOMATIC)


def _chosen(model: ConvertedModel, sizes: dict[str, tuple[int, int]]) -> dict[str, str]:
    return {
        node.name: chosen_algorithm(model, node, sizes[node.name])
        for node in model.graph.nodes
        if node.name in sizes
    }


def _tunable(
    model: ConvertedModel, sizes: dict[str, tuple[int, int]]
) -> dict[tuple[str, str, int], list[str]]:
    """The convolutions, as `_convolutions` gives them, that more than one algorithm applies to, and these."""
    really: dict[str, dict[str, str]] = {}
    for name in algorithms.ALGORITHMS:
        with algorithms.forced(name):  # where it does not apply, another one runs
            really[name] = _chosen(model, sizes)
    found = {
        layer: [name for name in algorithms.ALGORITHMS if really[name][layer[0]] == name]
        for layer in _convolutions(model)
    }
    return {layer: names for layer, names in found.items() if len(names) > 1}


def _forcing(name: str) -> Callable[[], contextlib.AbstractContextManager]:
    return lambda: algorithms.forced(name)
