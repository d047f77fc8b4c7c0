"""The dense counterparts of a converted network: what its sparsity is compared with."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from semisparse.converted import ConvertedModel, dtype_name, pack_weight
from semisparse.graph import Graph, Node, Ref, TensorRef, TensorSpec, references

__all__ = ["dense", "plain"]

_PACKED = "semisparse.conv2d.packed"
_LINEAR = "semisparse.linear.default"
_POOL = "semisparse.max_pool2d.default"
_ACTIVATIONS = {
    "relu": "aten.relu.default",
    "relu6": "aten.relu6.default",
    "silu": "aten.silu.default",
    "leaky_relu": "aten.leaky_relu.default",
    "hardswish": "aten.hardswish.default",
    "sigmoid": "aten.sigmoid.default",
}


def dense(model: ConvertedModel, seed: int = 0) -> ConvertedModel:
    """The same network on the same operators without any sparsity, for timing: no masks, and in place of the
    zeros of packed weights random values, scaled so that activations keep their size."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(model.named_buffers())
    nodes = []
    for node in model.graph.nodes:
        if node.op in (_PACKED, _LINEAR):
            name, groups = node.args[1].name, node.args[7] if node.op == _PACKED else 1
            if tensors[name] is model.get_buffer(name):  # a layer that is called twice has one weight
                weight = torch.ops.semisparse.unpack_weight(tensors[name])
                tensors[name] = pack_weight(_filled(weight, generator), groups)
            kwargs = {key: value for key, value in node.kwargs.items() if key not in ("mask", "fill")}
            node = dataclasses.replace(node, kwargs=kwargs)
        nodes.append(node)
    return _model(model.graph, nodes, tensors)


def plain(model: ConvertedModel) -> ConvertedModel:
    """The same network on PyTorch's operators alone, for other engines: weights with their zeros, no masks.

    Without column masks it computes the same as `model`, to float32 rounding.
    """
    tensors = dict(model.named_buffers())
    nodes: list[Node] = []
    for node in model.graph.nodes:
        if node.op in (_PACKED, _LINEAR):
            nodes += _layer(node, tensors)
        elif node.op == _POOL:
            nodes.append(dataclasses.replace(node, op="aten.max_pool2d.default"))
        else:
            nodes.append(node)
    return _model(model.graph, nodes, tensors)


def _layer(node: Node, tensors: dict[str, Tensor]) -> list[Node]:
    """Layer, residual addition and activation; the last of them has the name of the fused node."""
    source, packed, shape, *rest = node.args
    if tensors[packed.name].dtype == torch.uint8:  # a layer that is called twice has one weight
        tensors[packed.name] = torch.ops.semisparse.unpack_weight(tensors[packed.name]).reshape(shape)
    op = "aten.conv2d.default" if node.op == _PACKED else "aten.linear.default"
    steps: list[tuple[str, tuple]] = [(op, (source, packed, *rest))]
    if (residual := node.kwargs.get("residual")) is not None:
        steps.append(("aten.add.Tensor", (residual,)))
    if (activation := node.kwargs.get("activation", "none")) != "none":
        steps.append((_ACTIVATIONS[activation], ()))
    names = [f"{node.name}__{index}" for index in range(len(steps) - 1)] + [node.name]
    nodes = [Node(names[0], *steps[0])]
    for (op, args), before, name in zip(steps[1:], names, names[1:], strict=False):
        nodes.append(Node(name, op, (Ref(before), *args)))
    return nodes


def _filled(weight: Tensor, generator: torch.Generator) -> Tensor:
    """`weight` with random values where it is 0."""
    used = weight != 0
    density = used.float().mean().item()
    if density in (0.0, 1.0):
        return weight if density else torch.randn(weight.shape, generator=generator) * 1e-2
    scale = weight[used].square().mean().sqrt()
    values = torch.randn(weight.shape, generator=generator) * scale
    return torch.where(used, weight, values) * density**0.5


def _model(graph: Graph, nodes: list[Node], tensors: dict[str, Tensor]) -> ConvertedModel:
    used = {ref.name for node in nodes for ref in _tensor_refs((node.args, node.kwargs))}
    used |= {ref.name for ref in _tensor_refs(graph.output)}
    kept = {name: tensors[name] for name in tensors if name in used}
    specs = {name: TensorSpec(dtype_name(t.dtype), tuple(t.shape)) for name, t in kept.items()}
    return ConvertedModel(Graph(graph.inputs, specs, tuple(nodes), graph.output, graph.layers), kept)


def _tensor_refs(value: object) -> list[TensorRef]:
    return [ref for ref in references(value) if isinstance(ref, TensorRef)]
