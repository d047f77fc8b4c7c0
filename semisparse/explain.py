"""Where a converted network's time goes, layer by layer, and what sparsity does for it: `explain`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semisparse import algorithms
from semisparse._table import text_table
from semisparse.converted import ConvertedModel, pack_weight
from semisparse.dense import dense
from semisparse.graph import Node
from semisparse.layers import LayerRecord
from semisparse.sized import SizedModel
from semisparse.statistics import LayerStatistics, statistics
from semisparse.stepwise import PACKED_CONVOLUTION, fixed_threads, input_sizes, time_steps

__all__ = ["Explanation", "LayerExplanation", "explain"]

TEXT_COLUMNS = 6  # of the table
# Filters that stay when the time that does not depend on their number is measured: 8 of every 32.
_UNIT, _OF = 8, 4


@dataclass(frozen=True)
class LayerExplanation:
    """One layer. Times are medians in milliseconds of one call inside the network.

    Attributes:
        name: qualified name of the module.
        kind: conv2d, linear, ...
        weight_shape: (out channels, in channels / groups, kernel height, kernel width), or (out, in).
        output_size: (OH, OW); () for linear layers.
        scheme: the structure of the weights' zeros, as `statistics` names it.
        columns: fraction of the output pixels that the column mask removes.
        density: fraction of the multiply-accumulates that is left.
        algorithm: what computes it: one of `semisparse.algorithms.ALGORITHMS`, `linear` (semisparse::linear),
            or `torch`.
        ms: as it is.
        ms_dense: the same operator with dense weights and no mask, on its own best algorithm.
        share: of the network's time.
        packing: share of the layer's time that does not depend on the number of filters: gathering columns,
            transforming the input, the call itself. None where it was not measured.
        notes: why it is not sparse, or not faster.
    """

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    output_size: tuple[int, ...]
    scheme: str
    columns: float
    density: float
    algorithm: str
    ms: float
    ms_dense: float
    share: float
    packing: float | None
    notes: tuple[str, ...]

    @property
    def sparse(self) -> bool:
        """Whether an operator that can skip work has work to skip."""
        return self.algorithm != "torch" and self.density < 0.99


@dataclass(frozen=True)
class Explanation:
    """All layers of a network; `str()` is a table. Times in milliseconds.

    Attributes:
        layers: in the order of execution.
        ms: the network's time, the sum over all operator calls.
        ms_dense: the same of the dense network on the same operators.
        ms_other: what is not in `layers`: pooling, additions, concatenation...
        threads: with how many threads.
    """

    layers: tuple[LayerExplanation, ...]
    ms: float
    ms_dense: float
    ms_other: float
    threads: int

    @property
    def coverage(self) -> float:
        """Share of the network's time in layers that skip work."""
        return sum(layer.ms for layer in self.layers if layer.sparse) / self.ms

    def rows(self) -> list[list[str]]:
        """The table, header first."""
        rows = [_HEADER, *map(_row, self.layers)]
        other = ["(other)", *[""] * 6, f"{self.ms_other:.3f}", "", _percent(self.ms_other / self.ms), ""]
        total = ["total", *[""] * 5, f"{self.ms_dense:.3f}", f"{self.ms:.3f}"]
        return [*rows, other, [*total, f"{self.ms_dense / self.ms:.2f}", "", ""]]

    def summary(self) -> str:
        """Why layers are not sparse or not faster, and one line about the whole."""
        layers: dict[str, list[str]] = {}
        for layer in self.layers:
            for note in layer.notes:
                layers.setdefault(note, []).append(layer.name)
        lines = [f"{note}: {', '.join(names)}" for note, names in layers.items()]
        lines.append(
            f"{self.ms:.3f} ms on {self.threads} thread(s), {self.ms_dense:.3f} ms if it were dense; "
            f"{self.coverage:.0%} of the time is in layers that skip work"
        )
        return "\n".join(lines)

    def as_dict(self) -> dict:
        """For JSON."""
        return dataclasses.asdict(self) | {"coverage": self.coverage}

    def __str__(self) -> str:
        return f"{text_table(self.rows(), left=TEXT_COLUMNS)}\n{self.summary()}"


def explain(
    model: ConvertedModel | SizedModel,
    example_input: Tensor | Sequence[Tensor],
    *,
    threads: int | None = None,
    rounds: int = 15,
) -> Explanation:
    """Time every layer inside the network, sparse and dense, interleaved.

    Args:
        model: what `convert` or `load` returned.
        example_input: tensor or tensors that forward takes; give real or random data, not zeros.
        threads: None for the present setting of torch.
        rounds: timed passes through each variant of the network.

    Returns:
        An `Explanation`; print it.

    Raises:
        ValueError: a model that is not converted, a count below 1, or an input that the model refuses.
    """
    inputs = [example_input] if isinstance(example_input, Tensor) else list(example_input)
    if isinstance(model, SizedModel):
        model = model.at(tuple(inputs[0].shape[-2:]))
    if not isinstance(model, ConvertedModel):
        raise ValueError(
            f"explain takes a converted model, and this is a {type(model).__name__}; use "
            "semisparse.convert(model, example_input) first"
        )
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    with fixed_threads(threads) as used:
        sizes = input_sizes(model, inputs)
        with _thinned(model, sizes) as thinned:
            variants = {"sparse": model, "dense": dense(model), "thinned": thinned}
            times = time_steps(
                {label: (network, contextlib.nullcontext) for label, network in variants.items()},
                inputs,
                rounds=rounds,
            )
    total = sum(times["sparse"].values())
    work = {layer.name: layer for layer in statistics(model).layers}
    nodes = {node.name: node for node in model.graph.nodes}
    layers = [
        _layer(model, record, nodes[record.node], work.get(record.name), times, total, sizes)
        for record in model.layers
    ]
    other = total - sum(layer.ms for layer in layers)
    return Explanation(tuple(layers), total, sum(times["dense"].values()), max(other, 0.0), used)


def chosen_algorithm(model: ConvertedModel, node: Node, input_size: tuple[int, int]) -> str:
    """What computes a node of a network: the algorithm of a packed convolution, `linear` or `torch`."""
    if node.op != PACKED_CONVOLUTION:
        return "linear" if node.op == "semisparse.linear.default" else "torch"
    _, packed, _, _, stride, padding, dilation, _ = node.args
    mask = node.kwargs.get("mask")
    mask = None if mask is None else model.get_buffer(mask.name)
    half = any(given.dtype == "float16" for given in model.graph.inputs)
    dtype = torch.float16 if half else torch.float32
    pairs = (stride, padding, dilation)
    return algorithms.chosen(model.get_buffer(packed.name), input_size, *pairs, mask=mask, dtype=dtype)


def _layer(
    model: ConvertedModel,
    record: LayerRecord,
    node: Node,
    work: LayerStatistics | None,
    times: dict[str, dict[str, float]],
    total: float,
    sizes: dict[str, tuple[int, int]],
) -> LayerExplanation:
    ms, ms_dense = times["sparse"][node.name], times["dense"][node.name]
    algorithm = chosen_algorithm(model, node, sizes.get(node.name, (0, 0)))
    packing = None
    skips = node.op == PACKED_CONVOLUTION and algorithm != "depthwise"  # which multiplies zeros too
    if skips and record.weight_shape[0] >= _UNIT * _OF:
        # t = fixed + filters * each, known for all filters and for a quarter of them.
        packing = min(max((_OF * times["thinned"][node.name] - ms) / (_OF - 1) / ms, 0.0), 1.0)
    density = (1 - record.weight_sparsity) * (1 - record.column_sparsity)
    layer = LayerExplanation(
        name=record.name,
        kind=record.kind,
        weight_shape=record.weight_shape,
        output_size=_output_size(record, node, sizes),
        scheme=work.scheme if work else "dense",
        columns=record.column_sparsity,
        density=density,
        algorithm=algorithm,
        ms=ms,
        ms_dense=ms_dense,
        share=ms / total,
        packing=packing,
        notes=(),
    )
    return dataclasses.replace(layer, notes=(*record.reasons, *_why(layer)))


def _output_size(record: LayerRecord, node: Node, sizes: dict[str, tuple[int, int]]) -> tuple[int, ...]:
    """Of this run: a network of free size may have been converted with an example of another one."""
    if node.name not in sizes:
        return record.output_size
    steps = zip(sizes[node.name], record.weight_shape[2:], *node.args[4:7], strict=True)
    return tuple(
        (n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, k, stride, pad, dilation in steps
    )


def _why(layer: LayerExplanation) -> list[str]:
    """What measurement says about a layer that skips nothing, or gains less than half of what it skips."""
    if layer.density > 0.99:
        return ["nothing removed"]
    if layer.algorithm == "torch":
        return ["run densely by torch"]
    gain, bound = layer.ms_dense / layer.ms, 1 / max(layer.density, 1e-9)
    if gain >= 1 + (bound - 1) / 2:
        return []
    notes = []
    if layer.algorithm.startswith("winograd"):
        notes.append("Winograd skips whole kernels and whole tiles only")
    if layer.algorithm == "depthwise":
        notes.append("depthwise convolutions multiply zero weights like any others")
    if layer.packing is not None and layer.packing > 0.3:
        notes.append("packing the input takes as long as the arithmetic saved")
    if math.prod(layer.output_size or (1,)) < 100:
        notes.append("few columns: vectors are half empty, and weights are read all the same")
    return notes or [f"{gain:.2f}x of at most {bound:.2f}x"]


@contextlib.contextmanager
def _thinned(model: ConvertedModel, sizes: dict[str, tuple[int, int]]) -> Iterator[ConvertedModel]:
    """The network with a quarter of the filters of every packed convolution, each on the algorithm it has
    now."""
    tensors = dict(model.named_buffers())
    preferred = []
    for node in model.graph.nodes:
        if node.op != PACKED_CONVOLUTION:
            continue
        name, groups = node.args[1].name, node.args[7]
        whole = model.get_buffer(name)
        if tensors[name] is whole:  # a layer that is called twice has one weight
            weight = torch.ops.semisparse.unpack_weight(whole)
            weight[(torch.arange(len(weight)) // _UNIT) % _OF != 0] = 0
            tensors[name] = pack_weight(weight, groups)
        if torch.equal(tensors[name], whole):
            continue  # a preference would be that of the network itself
        algorithms.prefer(tensors[name], sizes[node.name], chosen_algorithm(model, node, sizes[node.name]))
        preferred.append((tensors[name], sizes[node.name]))
    specs = {
        name: dataclasses.replace(spec, shape=tuple(tensors[name].shape))
        for name, spec in model.graph.tensors.items()
    }
    try:
        yield ConvertedModel(dataclasses.replace(model.graph, tensors=specs), tensors)
    finally:
        for packed, size in preferred:
            algorithms.prefer(packed, size, algorithms.AUTOMATIC)


_HEADER = "layer|weight|output|scheme|work|algorithm|ms dense|ms|x|share|packing".split("|")


def _row(layer: LayerExplanation) -> list[str]:
    return [
        layer.name,
        "x".join(map(str, layer.weight_shape)),
        "x".join(map(str, layer.output_size)) or "-",
        layer.scheme + (f", columns {layer.columns:.0%}" if layer.columns else ""),
        f"{layer.density:.0%}",
        layer.algorithm,
        f"{layer.ms_dense:.3f}",
        f"{layer.ms:.3f}",
        f"{layer.ms_dense / layer.ms:.2f}",
        _percent(layer.share),
        "-" if layer.packing is None else _percent(layer.packing),
    ]


def _percent(fraction: float) -> str:
    return f"{fraction:.0%}"
