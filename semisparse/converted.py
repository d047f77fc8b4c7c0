"""`ConvertedModel`: the module that runs a converted network with torch."""

from __future__ import annotations

import linecache
import math
import operator
import types
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from semisparse import _library
from semisparse.graph import (
    Graph,
    Input,
    Node,
    Ref,
    Symbol,
    TensorRef,
    TensorSpec,
    references,
    transform,
    valid_name,
)
from semisparse.layers import LayerRecord

__all__ = ["ConvertedModel"]

_library.register()

_PYTHON = {
    name: getattr(operator, name) for name in ("getitem", "add", "sub", "mul", "floordiv", "mod", "neg")
}


class ConvertedModel(nn.Module):
    """An inference network made of `Graph` and constant tensors; what `convert` and `load` return.

    The graph is turned into straight-line Python (`code`) once: a call costs the operator calls and next to
    nothing else, and torch.compile, torch.export and profilers see plain operators. All tensors are
    buffers, so `to`, `state_dict` and `copy.deepcopy` work. The module has no training mode.

    `half()` makes it a network of float16 inputs and outputs, `float()` takes that back. Packed weights stay
    as they are; what arithmetic they meet is up to the processor, see `semisparse.ops.conv2d`.

    Attributes:
        graph: the network as data.
        layers: one `LayerRecord` per convolution or linear layer: what was done, and why not more.
        code: the Python source of the forward pass.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor]):
        """
        Args:
            graph: the network; names refer to `tensors`.
            tensors: the constant tensors, with the dtype and shape that `graph.tensors` declares.

        Raises:
            ValueError: a tensor is missing, unexpected, or of another dtype or shape, or a call does not fit
                its operator's schema.
        """
        super().__init__()
        _check_tensors(graph, tensors)
        for name in graph.tensors:
            self.register_buffer(name, tensors[name].detach())
        self.graph = graph
        self._build()
        self.eval()

    @property
    def layers(self) -> tuple[LayerRecord, ...]:
        return self.graph.layers

    def column_masks(self) -> dict[str, Tensor]:
        """The masks of the layers that have one, by layer name: bool (OH, OW), True = computed."""
        masks = {node.name: node.kwargs.get("mask") for node in self.graph.nodes}
        return {x.name: self.get_buffer(masks[x.node].name) for x in self.layers if masks[x.node] is not None}

    def _build(self) -> None:
        self.code, constants = _generate(self.graph)
        # Registered with linecache so that tracebacks and profilers can show the lines.
        filename = f"<semisparse model {id(self.graph):x}>"
        linecache.cache[filename] = (len(self.code), None, self.code.splitlines(True), filename)
        exec(compile(self.code, filename, "exec"), constants)  # names and literals in it were validated
        # On the instance and with the network's own parameters: nn.Module and torch.export call it directly.
        self.forward = types.MethodType(constants["forward"], self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConvertedModel:
        # What half(), to(dtype) and the like go through. The graph follows the dtype of the tensors.
        half = any(i.dtype == "float16" for i in self.graph.inputs)
        target = fn(torch.empty(0, dtype=torch.float16 if half else torch.float32)).dtype
        if target not in (torch.float32, torch.float16):
            raise ValueError(
                f"a converted network computes in float32 or float16, not in {dtype_name(target)}; "
                "use .float() or .half()"
            )
        super()._apply(fn, recurse)
        if target != (torch.float16 if half else torch.float32):
            self.graph = _with_dtype(self.graph, dtype_name(target), dict(self.named_buffers()))
            self._build()
        return self

    # The generated function is rebuilt, not copied: pickling and deep-copying carry data only.
    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key not in ("forward", "code")}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._build()

    def extra_repr(self) -> str:
        sparse = sum(layer.packed for layer in self.layers)
        inputs = ", ".join(
            f"{i.name}: {i.dtype}[{', '.join('*' if s is None else str(s) for s in i.shape)}]"
            for i in self.graph.inputs
        )
        return f"{inputs}; {sparse} of {len(self.layers)} layers run by operators of semisparse"


def pack_weight(weight: Tensor, groups: int) -> Tensor:
    """`semisparse::pack_weight` with plain zeros.

    Packing is exact to the bit, so it stores negative zeros; ``weight * mask`` makes one of every negative
    weight that it removes. Adding 0 makes them positive ones, which cost nothing.
    """
    return torch.ops.semisparse.pack_weight(weight.detach().cpu().contiguous() + 0.0, groups)


def dtype_name(dtype: torch.dtype) -> str:
    """'float32' for torch.float32, the spelling of `semisparse.graph`."""
    return str(dtype).removeprefix("torch.")


def _with_dtype(graph: Graph, dtype: str, tensors: Mapping[str, Tensor]) -> Graph:
    """The network with inputs and arguments of `dtype` instead of float32 or float16, and those tensors."""
    floating = ("float32", "float16")

    def leaf(value):
        if isinstance(value, Symbol) and value.kind == "dtype" and value.value in floating:
            return replace(value, value=dtype)
        return value

    return replace(
        graph,
        inputs=tuple(replace(i, dtype=dtype) if i.dtype in floating else i for i in graph.inputs),
        tensors={  # without the checksums, which were of other bytes
            name: TensorSpec(dtype_name(tensors[name].dtype), spec.shape)
            for name, spec in graph.tensors.items()
        },
        nodes=tuple(
            replace(node, args=transform(node.args, leaf), kwargs=transform(node.kwargs, leaf))
            for node in graph.nodes
        ),
    )


def resolve(op: str):
    """The callable behind an operator name of a graph, e.g. 'aten.relu.default'.

    Raises:
        ValueError: there is no such operator in this process.
    """
    namespace, _, rest = op.partition(".")
    if namespace == "operator" and rest in _PYTHON:
        return _PYTHON[rest]
    packet, _, overload = rest.rpartition(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    except AttributeError:
        raise ValueError(
            f"torch {torch.__version__} has no operator {op}; install the torch version that the model was "
            "converted with, or convert it again"
        ) from None


def _check_tensors(graph: Graph, tensors: Mapping[str, Tensor]) -> None:
    if missing := sorted(graph.tensors.keys() - tensors.keys()):
        raise ValueError(f"the tensor {missing[0]!r} is missing; write the file again with semisparse.save")
    if extra := sorted(tensors.keys() - graph.tensors.keys()):
        raise ValueError(
            f"there is a tensor {extra[0]!r} that the graph does not declare; write the file again"
        )
    for name, spec in graph.tensors.items():
        found = (dtype_name(tensors[name].dtype), tuple(tensors[name].shape))
        if found != (spec.dtype, spec.shape):
            raise ValueError(
                f"tensor {name!r} is {found[0]} {found[1]}, but declared as {spec.dtype} {spec.shape}; "
                "write the file again with semisparse.save"
            )


def _check_call(node: Node, function) -> None:
    """Compare a call with its operator's schema: a bad file fails when it is loaded, not when it runs."""
    schema = getattr(function, "_schema", None)
    if schema is None:  # one of Python's operators
        kinds = [Ref | int, Ref | int]
        if function is operator.neg:
            kinds = [Ref | int]
        elif function is operator.getitem:
            kinds = [Ref, int]
        if len(node.args) != len(kinds) or not all(map(isinstance, node.args, kinds)) or node.kwargs:
            raise ValueError(
                f"node {node.name!r} calls {node.op} with {node.args!r:.100}, expected {len(kinds)} integers "
                "or values of nodes; convert the model again"
            )
        return
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    names = {argument.name for argument in schema.arguments}
    given = {argument.name for argument in positional[: len(node.args)]} | set(node.kwargs)
    needed = {argument.name for argument in schema.arguments if not argument.has_default_value()}
    too_many = len(node.args) > len(positional)
    twice = len(given) < len(node.args) + len(node.kwargs)
    if too_many or twice or not given <= names or not needed <= given:
        raise ValueError(
            f"node {node.name!r} calls {node.op} with {len(node.args)} arguments and the keywords "
            f"{sorted(node.kwargs)}, which does not fit its schema {schema}; convert the model again"
        )


def _refuse(inputs: tuple[Input, ...], tensors: tuple) -> None:
    """Raise the error for inputs that failed the test at the top of the generated code."""
    for expected, given in zip(inputs, tensors, strict=True):
        shape = "(" + ", ".join(
            str(size) if size is not None else f">={low}"
            for size, low in zip(expected.shape, expected.minimum, strict=True)
        )
        what = f"{expected.name} must be a {expected.dtype} tensor of shape {shape})"
        if not isinstance(given, Tensor):
            raise ValueError(f"{what}, but it is a {type(given).__name__}")
        if dtype_name(given.dtype) != expected.dtype:
            raise ValueError(f"{what}, but it is {dtype_name(given.dtype)}; use x.to(torch.{expected.dtype})")
        fits = len(given.shape) == len(expected.shape) and all(
            size == wanted if wanted is not None else size >= low
            for size, wanted, low in zip(given.shape, expected.shape, expected.minimum, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{what}, but it is {tuple(given.shape)}. Column masks and fixed sizes belong to the example "
                "that the model was converted with: resize the input, or convert with an example of this size"
            )


def _generate(graph: Graph) -> tuple[str, dict]:
    """Python source of the forward pass, and the global names that it uses."""
    # All other names in the code start with an underscore, which those of a graph cannot.
    constants = {
        "_inputs": graph.inputs,
        "_refuse": _refuse,
        "_isinstance": isinstance,
        "_torch": torch,
        "_inf": math.inf,
        "_nan": math.nan,
    }
    functions: dict[str, str] = {}
    inputs = [i.name for i in graph.inputs]
    for name in (*inputs, *graph.tensors, *(node.name for node in graph.nodes)):
        if not valid_name(name):  # also when the graph did not come through Graph.from_json
            raise ValueError(f"{name!r} is not a valid name in a graph")

    def leaf(value) -> str:
        if isinstance(value, Ref):
            return value.name
        if isinstance(value, TensorRef):
            return f"_buffers[{value.name!r}]"
        if isinstance(value, Symbol):
            return f"_torch.device({value.value!r})" if value.kind == "device" else f"_torch.{value.value}"
        if isinstance(value, float) and not math.isfinite(value):
            return {"inf": "_inf", "-inf": "-_inf"}.get(str(value), "_nan")
        if value is None or type(value) in (bool, int, float, str):
            return repr(value)
        raise ValueError(f"a graph cannot hold the constant {value!r}")

    def source(value) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(source, value))}]"
        if isinstance(value, tuple):
            return f"({''.join(source(item) + ', ' for item in value)})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key!r}: {source(item)}" for key, item in value.items()) + "}"
        return leaf(value)

    def call(node: Node) -> str:
        if node.op not in functions:
            functions[node.op] = f"_{len(functions)}_{node.op.split('.')[1]}"
            constants[functions[node.op]] = resolve(node.op)
        _check_call(node, constants[functions[node.op]])
        args = [source(arg) for arg in node.args]
        if node.op == "aten.sym_size.int" and len(args) == 2:  # the same, and several times faster
            return f"{args[0]}.size({args[1]})"
        if node.op == "operator.getitem":
            return f"{args[0]}[{args[1]}]"
        arguments = args + [f"{key}={source(value)}" for key, value in node.kwargs.items()]
        return f"{functions[node.op]}({', '.join(arguments)})"

    last_use = {ref.name: node for node in graph.nodes for ref in references((node.args, node.kwargs))}
    kept = {ref.name for ref in references(graph.output)} | {i.name for i in graph.inputs}
    lines = [f"def forward(self, {', '.join(inputs)}):"]
    for i in graph.inputs:
        lines.append(f"    if not ({' and '.join(_conditions(i))}):")
        lines.append(f"        _refuse(_inputs, ({''.join(name + ', ' for name in inputs)}))")
    lines.append("    _buffers = self._buffers")
    for node in graph.nodes:
        lines.append(f"    {node.name} = {call(node)}")
        # Values are dropped after their last use, so that memory is reused as in an eager model.
        done = [ref.name for ref in references((node.args, node.kwargs)) if isinstance(ref, Ref)]
        done = {name for name in done if last_use[name] is node and name not in kept}
        if node.name not in last_use and node.name not in kept:
            done.add(node.name)
        if done:
            lines.append(f"    del {', '.join(sorted(done))}")
    lines.append(f"    return {source(graph.output)}")
    return "\n".join(lines) + "\n", constants


def _conditions(expected: Input) -> list[str]:
    name = expected.name
    conditions = [f"_isinstance({name}, _torch.Tensor)", f"{name}.dtype is _torch.{expected.dtype}"]
    conditions.append(f"{name}.dim() == {len(expected.shape)}")
    for index, (size, low) in enumerate(zip(expected.shape, expected.minimum, strict=True)):
        if size is not None:
            conditions.append(f"{name}.size({index}) == {size}")
        elif low > 1:
            conditions.append(f"{name}.size({index}) >= {low}")
    return conditions
