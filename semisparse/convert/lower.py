"""`convert`: from a training model to the network that runs fast."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from semisparse.convert.fuse import Fusion, fold_batch_norm, pair, plan
from semisparse.convert.trace import MASK_MARKER, Traced, arguments, is_mutating, trace
from semisparse.converted import ConvertedModel, dtype_name, pack_weight
from semisparse.graph import Graph, Input, Node, Ref, Symbol, TensorRef, TensorSpec, valid_name
from semisparse.layers import LayerRecord

__all__ = ["convert"]


def convert(
    model: nn.Module,
    example_input: Tensor | Sequence[Tensor],
    *,
    strict: bool = False,
    free_size: bool = True,
) -> ConvertedModel:
    """Turn a (masked) training model into an inference model on semisparse's operators.

    The result is an independent copy in eval mode on the CPU; `model` is not touched. BatchNorm is folded
    into the convolution before it, bias, activation and residual addition are fused into the operator,
    weights are packed, and column masks (`semisparse.masking`) become the operator's `mask`, with the
    BatchNorm's value at 0 as `fill`. Everything else of the network stays as it is. Outputs agree with the
    training model's in eval mode to float32 rounding.

    Args:
        model: any module that torch.export can capture. Its forward takes tensors by position.
        example_input: a tensor, or the sequence of tensors that forward takes. The batch size stays free
            (code that treats a batch of one specially is not seen). Height and width stay free too if no
            layer has a column mask and the model's code does not depend on them; otherwise other sizes are
            refused when the converted model runs.
        strict: raise if sparsity would be computed densely: if a layer has removed weights or a column mask
            and no operator of semisparse can use them. Either way the reason is in `layers`.
        free_size: False fixes height and width to the example's, which makes conversion several times faster.

    Returns:
        A `ConvertedModel`: call it, `save` it, look at its `layers` (what was done, and why not more).

    Raises:
        ValueError: the model cannot be captured, changes its own state, or, if `strict`, has a sparse layer
            that would run densely.
    """
    if not isinstance(model, nn.Module) or isinstance(model, ConvertedModel):
        raise ValueError(
            f"convert takes an nn.Module that is not converted yet, not a {type(model).__name__}"
        )
    example = (example_input,) if isinstance(example_input, Tensor) else example_input
    if (
        not isinstance(example, (tuple, list))
        or not example
        or not all(isinstance(x, Tensor) for x in example)
    ):
        raise ValueError(
            f"example_input must be a tensor or a sequence of tensors, but it is {example!r:.200}"
        )
    traced = trace(model, example, free_size)
    lowering = _Lowering(traced, plan(traced), _input_names(model, len(example)))
    graph = lowering.graph()
    if strict and (wasted := [record for record in lowering.records if record.wasted]):
        lines = "\n".join(f"  {record.name}: {'; '.join(record.reasons)}" for record in wasted)
        raise ValueError(
            f"{len(wasted)} of {len(lowering.records)} layers are sparse but would run densely:\n{lines}"
            "\nChange these layers, leave them out of the recipe, or convert with strict=False to accept it"
        )
    return ConvertedModel(graph, lowering.tensors)


class _Lowering:
    """Writes the traced graph, with its fusions, as a `semisparse.graph.Graph`."""

    def __init__(self, traced: Traced, fusions: list[Fusion], input_names: list[str]):
        self.traced = traced
        self.fusions = fusions
        self.by_last = {fusion.last: fusion for fusion in fusions}
        self.tensors: dict[str, Tensor] = {}
        self.records: list[LayerRecord] = []
        self._used: set[str] = set()
        self._stored: dict[Any, str] = {}
        self._values: dict[fx.Node, Ref] = {
            node: Ref(self._fresh(name)) for node, name in zip(traced.inputs, input_names, strict=True)
        }

    def graph(self) -> Graph:
        live = self._live()
        nodes = []
        for node in self.traced.graph.nodes:
            if node.op != "call_function" or node not in live:
                continue
            fusion = self.by_last.get(node)
            if fusion is not None and fusion.packed:
                lower = self._linear if fusion.kind == "linear" else self._convolution
                nodes.append(lower(fusion))
            else:
                nodes.append(self._call(node))
            if fusion is not None:
                self.records.append(self._record(fusion, nodes[-1].name))
        inputs = tuple(
            _input(node, self._values[node].name, free)
            for node, free in zip(self.traced.inputs, self.traced.free, strict=True)
        )
        output = self._argument(self.traced.output, lists=False)
        specs = {name: TensorSpec(dtype_name(t.dtype), tuple(t.shape)) for name, t in self.tensors.items()}
        return Graph(inputs, specs, tuple(nodes), output, tuple(self.records))

    def _live(self) -> set[fx.Node]:
        """Nodes whose value is needed: those that the output depends on, chains collapsed into their end."""
        live: set[fx.Node] = set()
        pending: list[fx.Node] = [node for node in self.traced.graph.nodes if is_mutating(node)]
        fx.map_arg(self.traced.output, pending.append)
        while pending:
            node = pending.pop()
            if node in live or node in self.traced.constants:
                continue
            live.add(node)
            fusion = self.by_last.get(node)
            if fusion is not None and fusion.packed:
                pending.append(arguments(fusion.node)["input"])
                pending += [fusion.residual] if fusion.residual is not None else []
            else:
                pending += node.all_input_nodes
        return live

    def _convolution(self, fusion: Fusion) -> Node:
        call = arguments(fusion.node)
        constants = self.traced.constants
        weight, groups = constants[call["weight"]], call["groups"]
        bias = None if call["bias"] is None else constants[call["bias"]]
        fill = None
        if fusion.batch_norm is not None:
            folded = {
                k: constants.get(v, v) if isinstance(v, fx.Node) else v
                for k, v in arguments(fusion.batch_norm).items()
            }
            weight, bias, fill = fold_batch_norm(weight, bias, folded)
        name = _layer_name(fusion.node)
        # A layer that is called twice has its constants once.
        source = (call["weight"], fusion.batch_norm and fusion.batch_norm.args[1:], groups)
        kwargs: dict[str, Any] = {}
        if fusion.mask is not None:
            # Masks are coherent across layers, so those of equal content are one tensor.
            mask = fusion.mask.contiguous()
            key = ("mask", tuple(mask.shape), mask.numpy().tobytes())
            kwargs["mask"] = self._store(f"{name}_mask", mask, key)
            if fill is not None:
                kwargs["fill"] = self._store(f"{name}_fill", fill, ("fill", *source))
        if fusion.activation != "none":
            kwargs["activation"] = fusion.activation
        if fusion.residual is not None:
            kwargs["residual"] = self._argument(fusion.residual)
        key = ("packed", *source)
        packed = self._stored.get(key)
        args = (
            self._argument(call["input"]),
            packed or self._store(f"{name}_packed", pack_weight(weight, groups), key),
            list(weight.shape),
            None if bias is None else self._store(f"{name}_bias", bias, ("bias", call["bias"], *source)),
            fusion.stride,
            fusion.padding,
            fusion.dilation,
            groups,
        )
        node = Node(self._fresh(name), "semisparse.conv2d.packed", args, kwargs)
        self._values[fusion.last] = Ref(node.name)
        return node

    def _linear(self, fusion: Fusion) -> Node:
        call = arguments(fusion.node)
        weight = self.traced.constants[call["weight"]]
        name, key = _layer_name(fusion.node), ("packed", call["weight"])
        packed = self._stored.get(key)
        args = (
            self._argument(call["input"]),
            packed or self._store(f"{name}_packed", pack_weight(weight, 1), key),
            list(weight.shape),
            None if call["bias"] is None else self._argument(call["bias"]),
        )
        kwargs = {} if fusion.activation == "none" else {"activation": fusion.activation}
        node = Node(self._fresh(name), "semisparse.linear.default", args, kwargs)
        self._values[fusion.last] = Ref(node.name)
        return node

    def _call(self, node: fx.Node) -> Node:
        args, kwargs, op = node.args, node.kwargs, _operator(node)
        if node.target is MASK_MARKER:
            op, args = "aten.where.ScalarOther", (node.args[1], node.args[0], 0)
        elif node.target is torch.ops.aten.max_pool2d.default and _is_float32_image(node):
            op = "semisparse.max_pool2d.default"
            args = tuple(pair(arg) if isinstance(arg, (list, tuple)) else arg for arg in args)
        result = Node(
            self._fresh(_layer_name(node) if node in self.by_last else node.name),
            op,
            tuple(self._argument(arg) for arg in args),
            {key: self._argument(arg) for key, arg in kwargs.items() if not _is_default(key, arg)},
        )
        self._values[node] = Ref(result.name)
        return result

    def _argument(self, value: Any, lists: bool = True) -> Any:
        """An argument in the graph's form; sequences become lists unless the output's structure matters."""
        if isinstance(value, fx.Node):
            if value in self.traced.constants:
                name = value.meta.get("semisparse_name", value.name)
                return self._store(name, self.traced.constants[value], ("constant", value))
            return self._values[value]
        if isinstance(value, dict):
            return {key: self._argument(item, lists) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self._argument(item, lists) for item in value]
            return items if lists or isinstance(value, list) else tuple(items)
        for kind, cls in _SYMBOL_CLASSES.items():
            if isinstance(value, cls):
                return Symbol(kind, str(value).removeprefix("torch."))
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise ValueError(
            f"an operator has the argument {value!r} of type {type(value).__name__}, which is not supported"
        )

    def _store(self, name: str, tensor: Tensor, key: Any = None) -> TensorRef:
        if key in self._stored and key is not None:
            return self._stored[key]
        name = self._fresh(name)
        self.tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        reference = TensorRef(name)
        if key is not None:
            self._stored[key] = reference
        return reference

    def _fresh(self, name: str) -> str:
        """A valid, unused name like `name`."""
        base = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_")[:200] or "value"
        base = f"layer_{base}" if base[0].isdigit() else base
        base = base if valid_name(base) else base + "_"
        name, count = base, 1
        while name in self._used:
            count += 1
            name = f"{base}_{count}"
        self._used.add(name)
        return name

    def _record(self, fusion: Fusion, node_name: str) -> LayerRecord:
        call = arguments(fusion.node)
        weight = self.traced.constants.get(call["weight"])
        shape = call["weight"].meta["val"].shape
        source, result = (_example_shape(n) for n in (call["input"], fusion.node))
        if fusion.kind == "linear":
            size, positions = (), math.prod(result[1:-1])
        else:
            size = result[-(len(shape) - 2) :]
            positions = math.prod(source[-len(size) :] if "transpose" in fusion.kind else size)
        return LayerRecord(
            name=_layer_name(fusion.node),
            kind=fusion.kind,
            node=node_name,
            weight_shape=tuple(int(s) for s in shape),
            groups=call.get("groups", 1),
            output_size=size,
            positions=positions,
            weight_sparsity=0.0 if weight is None else _zeros(weight),
            column_sparsity=0.0 if fusion.mask is None else _zeros(fusion.mask),
            packed=fusion.packed,
            batch_norm=fusion.batch_norm is not None,
            residual=fusion.residual is not None,
            activation=fusion.activation,
            reasons=tuple(fusion.reasons),
            notes=tuple(fusion.notes),
        )


_SYMBOL_CLASSES = {
    "dtype": torch.dtype,
    "memory_format": torch.memory_format,
    "layout": torch.layout,
    "device": torch.device,
}


def _is_default(key: str, value: Any) -> bool:
    # Export writes these out on every operator that creates a tensor; they say nothing.
    return key == "pin_memory" and value in (None, False)


def _operator(node: fx.Node) -> str:
    """The operator's name in a graph, e.g. 'aten.relu.default' or 'operator.getitem'."""
    if isinstance(node.target, torch._ops.OpOverload):
        namespace, _, name = node.target._schema.name.partition("::")
        return f"{namespace}.{name}.{node.target._overloadname}"
    if getattr(operator, node.target.__name__, None) is node.target:
        return f"operator.{node.target.__name__}"
    raise ValueError(f"the graph calls {node.target}, which a converted model cannot hold")


def _layer_name(node: fx.Node) -> str:
    """Qualified name of the module that a node was traced in, e.g. 'layer1.0.conv1'."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next((path for path, _ in reversed(list(stack.values()))), "")
    path = re.sub(r"@\d+", "", path)  # export's mark for a second call of one module
    # The wrapper that is traced holds the network as "model"; a network may have a "model" of its own.
    return node.name if path in ("", "model") else path.removeprefix("model.")


def _is_float32_image(node: fx.Node) -> bool:
    value = node.meta["val"]
    return value.dim() == 4 and value.dtype == torch.float32


def _zeros(tensor: Tensor) -> float:
    return 1 - tensor.count_nonzero().item() / max(1, tensor.numel())


def _example_shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else size.node.hint for size in node.meta["val"].shape)


def _input(node: fx.Node, name: str, minimum: tuple[int | None, ...]) -> Input:
    value = node.meta["val"]
    shape = tuple(int(size) if low is None else None for size, low in zip(value.shape, minimum, strict=True))
    low = tuple(low if size is None else size for size, low in zip(shape, minimum, strict=True))
    return Input(name, dtype_name(value.dtype), shape, low)


def _input_names(model: nn.Module, count: int) -> list[str]:
    import inspect

    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in positional]
    return [names[i] if i < len(names) else f"input_{i}" for i in range(count)]
