"""What is cheaper to compute in another order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semisparse import _core
from semisparse.graph import Graph, Node, Ref, TensorRef, references
from semisparse.runtime.operators import concatenation_axis, convolution_arguments
from semisparse.runtime.operators.registry import pair

__all__ = ["convolve_before_upsampling"]

_UPSAMPLE = "aten.upsample_nearest2d.vec"
_CONVOLUTION = "semisparse.conv2d.packed"


def convolve_before_upsampling(
    graph: Graph, tensors: dict[str, np.ndarray]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Let 1x1 convolutions of upsampled channels read them as they were before.

    A 1x1 convolution and nearest-neighbour upsampling commute, so in

        conv(cat([upsample(x), y, ...])) = conv_y(cat([y, ...])) + upsample(conv_x(x))

    the part over x is computed for as many pixels as x has (a quarter, where both sides double), and the
    other part takes it as its residual. Done where no more channels come out of the convolution than x has,
    so that upsampling moves no more than before.

    Args:
        tensors: the constants by name; weights of `semisparse.conv2d.packed` as packed bytes.

    Returns:
        The graph, which computes the same to rounding, and the constants with those that it needs more.
    """
    uses = Counter(
        ref.name
        for found in (*((node.args, node.kwargs) for node in graph.nodes), graph.output)
        for ref in references(found)
        if isinstance(ref, Ref)
    )
    by_name = {node.name: node for node in graph.nodes}
    tensors = dict(tensors)
    replaced: dict[str, list[Node]] = {}
    for node in graph.nodes:
        cut = _find(node, by_name, uses)
        parts = None if cut is None else _split(node, cut, tensors)
        if parts is not None:
            replaced |= {cut.join.name: [], cut.upsample.name: [], node.name: parts}
    nodes = tuple(new for node in graph.nodes for new in replaced.get(node.name, [node]))
    return (replace(graph, nodes=nodes) if replaced else graph), tensors


@dataclass(frozen=True)
class _Cut:
    """A concatenation and the operand of it that is upsampled, with its channels [begin, end)."""

    join: Node
    upsample: Node
    begin: int
    end: int


def _find(node: Node, by_name: dict[str, Node], uses: Counter) -> _Cut | None:
    """Where to cut a 1x1 convolution of what only it reads; None for all other nodes."""
    if node.op != _CONVOLUTION:
        return None
    given = convolution_arguments(node.op, node.args, node.kwargs)
    outputs, _, *kernel = given["weight_shape"]
    join = _only(given["input"], by_name, uses)
    if (
        join is None
        or concatenation_axis(join.op, join.args, join.kwargs) != 1
        or len(join.args[0]) < 2
        or kernel != [1, 1]
        or given["groups"] != 1
        or pair(given["stride"]) != (1, 1)
        or any(pair(given["padding"]))
        or given["mask"] is not None
        or given["residual"] is not None
    ):
        return None
    begin = 0
    for operand in join.args[0]:
        part = _only(operand, by_name, uses)
        doubled = part is not None and part.op == _UPSAMPLE and min((*part.args, None)[2] or [0]) >= 2
        channels = _channels(part.args[0] if doubled else operand, by_name)
        if channels is None:
            return None
        if doubled:
            return _Cut(join, part, begin, begin + channels) if channels >= outputs else None
        begin += channels
    return None


def _only(operand: Any, by_name: dict[str, Node], uses: Counter) -> Node | None:
    """The node whose value is the operand, if nobody else reads it."""
    return by_name.get(operand.name) if isinstance(operand, Ref) and uses[operand.name] == 1 else None


def _channels(operand: Any, by_name: dict[str, Node]) -> int | None:
    """Channels of the result of a convolution; of others they are not known without running them."""
    node = by_name.get(operand.name) if isinstance(operand, Ref) else None
    if node is None or node.op != _CONVOLUTION:
        return None
    return convolution_arguments(node.op, node.args, node.kwargs)["weight_shape"][0]


def _split(node: Node, cut: _Cut, tensors: dict[str, np.ndarray]) -> list[Node] | None:
    """The nodes in place of a convolution; None if its weight is none, which is reported elsewhere."""
    given = convolution_arguments(node.op, node.args, node.kwargs)
    weight = given["weight"]
    if not isinstance(weight, TensorRef):
        return None
    dense = _core.unpack_weight(tensors[weight.name])
    if list(dense.shape) != list(given["weight_shape"]) or dense.shape[1] < cut.end:
        return None
    outputs = dense.shape[0]
    parts = {
        "upsampled": dense[:, cut.begin : cut.end],
        "rest": np.concatenate([dense[:, : cut.begin], dense[:, cut.end :]], axis=1),
    }
    call: dict[str, tuple] = {}
    for part, values in parts.items():
        name = f"{weight.name}/{part} {cut.begin}:{cut.end}"  # graphs of other sizes may share it
        tensors[name] = _core.pack_weight(np.ascontiguousarray(values))
        call[part] = (TensorRef(name), [outputs, values.shape[1], 1, 1])
    low = Node(f"{node.name}/low", _CONVOLUTION, (cut.upsample.args[0], *call["upsampled"]))
    high = replace(
        cut.upsample,
        name=f"{node.name}/upsampled",
        args=(Ref(low.name), *cut.upsample.args[1:]),
    )
    others = [operand for operand in cut.join.args[0] if operand != Ref(cut.upsample.name)]
    joined = [] if len(others) == 1 else [replace(cut.join, name=f"{node.name}/joined", args=(others, 1))]
    source = Ref(joined[0].name) if joined else others[0]
    last = replace(
        node,
        args=(source, *call["rest"], *node.args[3:]),
        kwargs=node.kwargs | {"residual": Ref(high.name)},
    )
    return [low, high, *joined, last]
