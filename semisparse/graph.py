"""The graph of a converted network: data only, readable without torch.

A converted network is a list of operator calls in execution order plus named constant tensors. This module
holds the data classes, their JSON form and the validation of that form; it imports neither torch nor numpy,
so that any runtime can share it. `semisparse.converted` executes a graph with torch.

JSON form (`Graph.to_json`)::

    {"format": "semisparse-graph", "version": 1, "producer": "semisparse 0.1.0",
     "inputs":  [{"name": "x", "dtype": "float32", "shape": [null, 3, 64, 64], "minimum": [1, 3, 64, 64]}],
     "tensors": {"conv1_packed": {"dtype": "uint8", "shape": [37960], "crc32": 123}},
     "nodes":   [{"name": "relu", "op": "semisparse.conv2d.packed", "args": [...], "kwargs": {...}}],
     "output":  {"node": "linear"},
     "layers":  [...]}

A size that is null is free, from its minimum on. The contents of the tensors are stored elsewhere. `layers`
holds one record per convolution and linear layer, for people and for statistics.

An argument is null, a boolean, an integer, a number, a string, a list of arguments, or an object with one
key:

    {"node": name}             the value of an input or of an earlier node
    {"tensor": name}           a constant tensor
    {"float": "inf"}           inf, -inf or nan, which JSON lacks
    {"dtype": "float32"}, {"memory_format": "channels_last"}, {"layout": "strided"}, {"device": "cpu"}
    {"tuple": [...]}, {"dict": {...}}     in the output only

Vocabulary: `OPERATORS` below. Names are those of PyTorch's ATen operators with their overload
("aten.relu.default") and have ATen's meaning and defaults, so ATen's documentation is theirs;
"semisparse.*" are this project's operators; "operator.*" are Python's, on the integers of shape
computations (and `getitem` on lists). All are functional: none changes its arguments, touches files, or
reads memory outside of its tensors. A file that names any other operator is refused, whatever else it says.
"""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from semisparse.layers import LayerRecord

__all__ = ["OPERATORS", "Graph", "Input", "Node", "Ref", "Symbol", "TensorRef", "TensorSpec"]

FORMAT = "semisparse-graph"
VERSION = 1

OPERATORS = frozenset(
    """
    semisparse.conv2d.packed semisparse.conv2d.default semisparse.linear.default semisparse.max_pool2d.default

    aten.conv1d.default aten.conv2d.default aten.conv2d.padding aten.conv3d.default
    aten.conv_transpose1d.default aten.conv_transpose2d.input aten.conv_transpose3d.input
    aten.linear.default aten.matmul.default aten.mm.default aten.bmm.default aten.addmm.default
    aten.scaled_dot_product_attention.default aten.embedding.default

    aten.batch_norm.default aten.layer_norm.default aten.group_norm.default aten.instance_norm.default
    aten.rms_norm.default aten.linalg_vector_norm.default

    aten.max_pool1d.default aten.max_pool2d.default aten.max_pool3d.default
    aten.avg_pool1d.default aten.avg_pool2d.default aten.avg_pool3d.default
    aten.adaptive_avg_pool1d.default aten.adaptive_avg_pool2d.default aten.adaptive_avg_pool3d.default
    aten.adaptive_max_pool2d.default
    aten.upsample_nearest2d.vec aten.upsample_nearest2d.default aten.upsample_bilinear2d.vec
    aten.upsample_bilinear2d.default aten.upsample_bicubic2d.vec aten.pixel_shuffle.default
    aten.pixel_unshuffle.default aten.channel_shuffle.default aten.grid_sampler.default
    aten.pad.default aten.constant_pad_nd.default aten.reflection_pad2d.default aten.replication_pad2d.default

    aten.relu.default aten.relu6.default aten.hardtanh.default aten.leaky_relu.default aten.prelu.default
    aten.elu.default aten.celu.default aten.selu.default aten.gelu.default aten.silu.default
    aten.mish.default aten.hardswish.default aten.hardsigmoid.default aten.sigmoid.default aten.tanh.default
    aten.softplus.default aten.log_sigmoid.default aten.softmax.int
    aten._softmax.default aten.log_softmax.int aten.glu.default aten.threshold.default

    aten.add.Tensor aten.add.Scalar aten.sub.Tensor aten.sub.Scalar aten.rsub.Scalar aten.mul.Tensor
    aten.mul.Scalar aten.div.Tensor aten.div.Scalar aten.div.Tensor_mode aten.floor_divide.default
    aten.remainder.Scalar aten.pow.Tensor_Scalar aten.pow.Tensor_Tensor aten.neg.default aten.abs.default
    aten.sign.default aten.exp.default aten.log.default aten.sqrt.default aten.rsqrt.default
    aten.square.default aten.reciprocal.default aten.sin.default aten.cos.default aten.erf.default
    aten.floor.default aten.ceil.default aten.round.default aten.clamp.default aten.clamp.Tensor
    aten.clamp_min.default aten.clamp_max.default aten.minimum.default aten.maximum.default aten.eq.Tensor
    aten.eq.Scalar aten.ne.Tensor aten.ne.Scalar aten.lt.Tensor aten.lt.Scalar aten.le.Tensor aten.le.Scalar
    aten.gt.Tensor aten.gt.Scalar aten.ge.Tensor aten.ge.Scalar aten.logical_and.default
    aten.logical_or.default aten.logical_not.default aten.bitwise_and.Tensor aten.bitwise_or.Tensor
    aten.bitwise_not.default aten.where.self aten.where.ScalarOther aten.where.ScalarSelf
    aten.masked_fill.Scalar aten.lerp.Scalar

    aten.sum.default aten.sum.dim_IntList aten.mean.default aten.mean.dim aten.amax.default
    aten.amin.default aten.max.default aten.max.dim aten.min.default aten.min.dim aten.prod.dim_int
    aten.var.correction aten.std.correction aten.argmax.default aten.argmin.default aten.topk.default
    aten.sort.default aten.argsort.default aten.cumsum.default aten.any.default aten.all.default
    aten.any.dim aten.all.dim

    aten.view.default aten.reshape.default aten.flatten.using_ints aten.unflatten.int aten.squeeze.default
    aten.squeeze.dim aten.squeeze.dims aten.unsqueeze.default aten.permute.default aten.transpose.int
    aten.t.default aten.expand.default aten.expand_as.default aten.repeat.default aten.movedim.int
    aten.flip.default aten.roll.default aten.cat.default aten.concat.default aten.stack.default
    aten.split.Tensor aten.split.sizes aten.split_with_sizes.default aten.chunk.default aten.unbind.int
    aten.slice.Tensor aten.select.int aten.narrow.default aten.index_select.default aten.index.Tensor
    aten.gather.default aten.unfold.default aten.im2col.default aten.meshgrid.indexing aten.tril.default
    aten.triu.default aten.clone.default aten.contiguous.default aten.to.dtype aten.to.dtype_layout
    aten._to_copy.default aten.type_as.default

    aten.zeros.default aten.ones.default aten.full.default aten.zeros_like.default aten.ones_like.default
    aten.full_like.default aten.new_zeros.default aten.new_ones.default aten.new_full.default
    aten.arange.default aten.arange.start aten.arange.start_step aten.linspace.default
    aten.scalar_tensor.default

    aten.sym_size.int aten.sym_numel.default
    operator.getitem operator.add operator.sub operator.mul operator.floordiv operator.mod operator.neg
    """.split()
)

# Limits that no honest file comes near; they bound what validation itself may cost.
_MAX_NODES, _MAX_RANK, _MAX_DEPTH, _MAX_INT = 100_000, 8, 16, 2**63

_DTYPES = frozenset("bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64".split())
_SYMBOLS = {
    "dtype": _DTYPES,
    "memory_format": frozenset({"contiguous_format", "channels_last", "preserve_format"}),
    "layout": frozenset({"strided"}),
    "device": frozenset({"cpu"}),
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,250}")
_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True)
class Ref:
    """The value of an input or of an earlier node."""

    name: str


@dataclass(frozen=True)
class TensorRef:
    """A constant tensor."""

    name: str


@dataclass(frozen=True)
class Symbol:
    """A named constant: kind is dtype, memory_format, layout or device."""

    kind: str
    value: str


@dataclass(frozen=True)
class Input:
    """An input tensor. `shape` holds None for a size that is free, and then at least that in `minimum`."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    minimum: tuple[int, ...]


@dataclass(frozen=True)
class TensorSpec:
    """What is expected of a constant tensor. `crc32` is over its bytes, little-endian and contiguous."""

    dtype: str
    shape: tuple[int, ...]
    crc32: int | None = None


@dataclass(frozen=True)
class Node:
    """An operator call. Arguments: None, bool, int, float, str, `Ref`, `TensorRef`, `Symbol` or lists."""

    name: str
    op: str
    args: tuple
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Operator calls in execution order. `layers` describe the convolutions and linear layers to people."""

    inputs: tuple[Input, ...]
    tensors: dict[str, TensorSpec]
    nodes: tuple[Node, ...]
    output: Any
    layers: tuple[LayerRecord, ...] = ()

    def to_json(self, producer: str) -> str:
        """The JSON form. Raises ValueError if the graph cannot be stored: an operator not in `OPERATORS`."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "producer": producer,
            "inputs": [
                {"name": i.name, "dtype": i.dtype, "shape": list(i.shape), "minimum": list(i.minimum)}
                for i in self.inputs
            ],
            "tensors": {
                name: {"dtype": spec.dtype, "shape": list(spec.shape), "crc32": spec.crc32}
                for name, spec in self.tensors.items()
            },
            "nodes": [
                {
                    "name": node.name,
                    "op": node.op,
                    "args": [_encode(arg, node.op) for arg in node.args],
                    "kwargs": {key: _encode(arg, node.op) for key, arg in node.kwargs.items()},
                }
                for node in self.nodes
            ],
            "output": _encode(self.output, "output"),
            "layers": [layer.to_json() for layer in self.layers],
        }
        text = json.dumps(document, allow_nan=False, separators=(",", ":"))
        Graph.from_json(text)  # what cannot be read back must not be written
        return text

    @staticmethod
    def from_json(text: str) -> Graph:
        """Parse and validate. Raises ValueError that says what was found, what is expected and what to do."""
        try:
            document = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the graph is not valid JSON ({error}); {_DAMAGED}") from None
        return Graph.from_document(document)

    @staticmethod
    def from_document(document: Any) -> Graph:
        """`from_json` of JSON that is parsed already. Raises the same ValueError."""
        return _Parser(document).graph()


def references(value: Any) -> Iterator[Ref | TensorRef]:
    """All `Ref` and `TensorRef` inside an argument, an output or a sequence of them."""
    if isinstance(value, (Ref, TensorRef)):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)


def transform(value: Any, function: Callable[[Any], Any]) -> Any:
    """`value` with `function` applied to every leaf; lists, tuples and dicts are kept."""
    if isinstance(value, (list, tuple)):
        return type(value)(transform(item, function) for item in value)
    if isinstance(value, dict):
        return {key: transform(item, function) for key, item in value.items()}
    return function(value)


_DAMAGED = "the file is damaged or was not written by semisparse.save: write it again"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, Ref):
        return {"node": value.name}
    if isinstance(value, TensorRef):
        return {"tensor": value.name}
    if isinstance(value, Symbol):
        return {value.kind: value.value}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, tuple) and where == "output":
        return {"tuple": [_encode(item, where) for item in value]}
    if isinstance(value, (list, tuple)):
        return [_encode(item, where) for item in value]
    if isinstance(value, dict) and where == "output":
        return {"dict": {key: _encode(item, where) for key, item in value.items()}}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{where} has an argument of type {type(value).__name__}, which cannot be saved")


class _Parser:
    """Builds a `Graph` from untrusted JSON, checking every field."""

    def __init__(self, document: Any):
        self.document = document
        self.known: set[str] = set()

    def graph(self) -> Graph:
        document = self._object(self.document, "the graph")
        if document.get("format") != FORMAT:
            raise ValueError(f"format is {_show(document.get('format'))}, expected '{FORMAT}'; {_DAMAGED}")
        version = self._integer(document.get("version"), "version")
        if version > VERSION:
            raise ValueError(
                f"the graph has format version {version}, but this semisparse reads up to {VERSION}; "
                "install a newer semisparse, or save the model again with this one"
            )
        if version < 1:
            raise ValueError(f"version is {version}, expected 1 to {VERSION}; {_DAMAGED}")
        fields = {"format", "version", "producer", "inputs", "tensors", "nodes", "output", "layers"}
        self._keys(document, "the graph", fields)
        self._text(document["producer"], "producer")
        self.tensors = {
            self._name(name, "a tensor"): self._tensor(spec, f"tensor {_show(name)}")
            for name, spec in self._object(document["tensors"], "tensors").items()
        }
        inputs = tuple(self._input(item) for item in self._list(document["inputs"], "inputs", 1000))
        nodes = tuple(self._node(item) for item in self._list(document["nodes"], "nodes", _MAX_NODES))
        output = self._value(document["output"], "output", 0, output=True)
        layers = tuple(map(LayerRecord.from_json, self._list(document["layers"], "layers", _MAX_NODES)))
        if unknown := {layer.node for layer in layers} - {node.name for node in nodes}:
            raise ValueError(
                f"a layer record names node {_show(min(unknown))}, which does not exist; {_DAMAGED}"
            )
        return Graph(inputs, self.tensors, nodes, output, layers)

    def _input(self, item: Any) -> Input:
        item = self._keys(self._object(item, "an input"), "an input", {"name", "dtype", "shape", "minimum"})
        name = self._define(item["name"])
        where = f"shape of input {name}"
        shape = tuple(
            None if size is None else self._size(size, where)
            for size in self._list(item["shape"], where, _MAX_RANK)
        )
        minimum = tuple(self._size(size, where) for size in self._list(item["minimum"], where, len(shape)))
        if len(minimum) != len(shape):
            raise ValueError(f"{where} has {len(shape)} sizes, but {len(minimum)} minima; {_DAMAGED}")
        return Input(name, self._dtype(item["dtype"], f"dtype of input {name}"), shape, minimum)

    def _tensor(self, spec: Any, where: str) -> TensorSpec:
        spec = self._keys(self._object(spec, where), where, {"dtype", "shape", "crc32"})
        sizes = self._list(spec["shape"], f"shape of {where}", _MAX_RANK)
        shape = tuple(self._size(size, f"shape of {where}") for size in sizes)
        crc32 = None if spec["crc32"] is None else self._integer(spec["crc32"], f"crc32 of {where}")
        return TensorSpec(self._dtype(spec["dtype"], f"dtype of {where}"), shape, crc32)

    def _node(self, item: Any) -> Node:
        item = self._keys(self._object(item, "a node"), "a node", {"name", "op", "args", "kwargs"})
        op = item["op"]
        if not isinstance(op, str) or op not in OPERATORS:
            raise ValueError(
                f"node {_show(item['name'])} calls {_show(op)}, which is not in the vocabulary of saved "
                "graphs (semisparse.graph.OPERATORS). Such a model runs in the process that converted it, "
                "but cannot be saved; if a file says this, do not trust it"
            )
        where = f"node {_show(item['name'])}"
        args = tuple(self._value(arg, where, 0) for arg in self._list(item["args"], f"args of {where}", 64))
        kwargs = {
            self._name(key, f"a keyword of {where}"): self._value(arg, where, 0)
            for key, arg in self._object(item["kwargs"], f"kwargs of {where}").items()
        }
        return Node(self._define(item["name"]), op, args, kwargs)

    def _value(self, value: Any, where: str, depth: int, output: bool = False) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError(f"{where} is nested more than {_MAX_DEPTH} deep; {_DAMAGED}")
        if isinstance(value, list):
            return [self._value(item, where, depth + 1, output) for item in self._list(value, where, 100_000)]
        if isinstance(value, dict):
            if len(value) != 1:
                raise ValueError(
                    f"{where} has an argument with keys {_show(sorted(value))}, expected one key; {_DAMAGED}"
                )
            ((kind, content),) = value.items()
            return self._special(kind, content, where, depth, output)
        if isinstance(value, int) and abs(value) > _MAX_INT:
            raise ValueError(f"{where} has the integer {_show(value)}, which exceeds 64 bits; {_DAMAGED}")
        return value  # None, bool, int, float, str: json.loads makes nothing else

    def _special(self, kind: str, content: Any, where: str, depth: int, output: bool) -> Any:
        if kind == "node":
            if not isinstance(content, str) or content not in self.known:
                raise ValueError(
                    f"{where} refers to {_show(content)}, which is no input and no earlier node; {_DAMAGED}"
                )
            return Ref(content)
        if kind == "tensor":
            if not isinstance(content, str) or content not in self.tensors:
                raise ValueError(
                    f"{where} refers to tensor {_show(content)}, which is not declared; {_DAMAGED}"
                )
            return TensorRef(content)
        if kind == "float" and isinstance(content, str) and content in _NON_FINITE:
            return _NON_FINITE[content]
        if kind in _SYMBOLS and isinstance(content, str) and content in _SYMBOLS[kind]:
            return Symbol(kind, content)
        if output and kind == "tuple":
            items = self._list(content, where, 100_000)
            return tuple(self._value(item, where, depth + 1, output) for item in items)
        if output and kind == "dict":
            items = self._object(content, where)
            return {key: self._value(item, where, depth + 1, output) for key, item in items.items()}
        raise ValueError(
            f"{where} has the argument {_show({kind: content})}, which has no meaning; {_DAMAGED}"
        )

    def _define(self, name: Any) -> str:
        name = self._name(name, "a value")
        if name in self.known:
            raise ValueError(f"the name {name!r} is defined twice; {_DAMAGED}")
        self.known.add(name)
        return name

    @staticmethod
    def _name(name: Any, where: str) -> str:
        if not isinstance(name, str) or not valid_name(name):
            raise ValueError(
                f"{where} is named {_show(name)}, expected letters, digits and underscores, a letter first, "
                f"and no word of Python; {_DAMAGED}"
            )
        return name

    @staticmethod
    def _dtype(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in _DTYPES:
            raise ValueError(f"{where} is {_show(value)}, expected one of {sorted(_DTYPES)}; {_DAMAGED}")
        return value

    @staticmethod
    def _integer(value: Any, where: str) -> int:
        if type(value) is not int:
            raise ValueError(f"{where} is {_show(value)}, expected an integer; {_DAMAGED}")
        return value

    def _size(self, value: Any, where: str) -> int:
        if not 0 <= self._integer(value, where) < 2**40:
            raise ValueError(f"{where} holds {_show(value)}, expected a size from 0 to 2^40; {_DAMAGED}")
        return value

    @staticmethod
    def _text(value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{where} is {_show(value)}, expected text; {_DAMAGED}")
        return value

    @staticmethod
    def _object(value: Any, where: str) -> dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {_show(value)}, expected a JSON object; {_DAMAGED}")
        return value

    @staticmethod
    def _keys(value: dict, where: str, keys: set[str]) -> dict:
        if set(value) != keys:
            found = _show(sorted(value))
            raise ValueError(f"{where} has the keys {found}, expected {sorted(keys)}; {_DAMAGED}")
        return value

    @staticmethod
    def _list(value: Any, where: str, limit: int) -> list:
        if not isinstance(value, list) or len(value) > limit:
            found = f"{len(value)} items" if isinstance(value, list) else _show(value)
            raise ValueError(f"{where} is {found}, expected a list of at most {limit} items; {_DAMAGED}")
        return value


def valid_name(name: str) -> bool:
    """Whether `name` may name an input, node or tensor; such names are safe identifiers in generated code."""
    return _NAME.fullmatch(name) is not None and not keyword.iskeyword(name) and name != "self"


def _show(value: Any) -> str:
    """`repr` for error messages, cut short: the value comes from a file and may be huge."""
    text = ascii(value)
    return text if len(text) <= 120 else text[:117] + "..."
