"""Converted networks with numpy alone: `load` and the `Network` that it returns."""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from typing import Any

import numpy as np

from semisparse import _core, container, tuning_file
from semisparse.graph import Graph, Input, Node, TensorRef, TensorSpec, references
from semisparse.layers import LayerRecord
from semisparse.runtime.operators import convolution_arguments
from semisparse.runtime.plan import SENSELESS, Plan, check_operators, trace
from semisparse.runtime.rewriting import convolve_before_upsampling
from semisparse.tuning_file import Tuning

__all__ = ["Network", "load"]

_PLANS = 8  # input shapes, or threads at once, whose plans are kept


class Network:
    """A converted network as a function of numpy arrays; what `load` returns.

    Calling it gives what `semisparse.load` gives with torch, to rounding: an array, or the tuple or
    dictionary that the original model returned. Inputs may also be arrays of another library with DLPack,
    such as torch's tensors, which are read where they lie. The first call with an input shape plans its
    memory and is slower. Safe to call from several threads; `set_num_threads` applies.

    Attributes:
        layers: one `LayerRecord` per convolution or linear layer.
        info: what was stored with a network for several image sizes, for example class names; else empty.
    """

    def __init__(self, contents: container.Contents, tensors: dict[str, np.ndarray]):
        self.info = contents.info
        graphs = []
        for graph in contents.graphs:
            _check_specs(graph, tensors)
            check_operators(graph)
            graph, tensors = convolve_before_upsampling(graph, tensors)
            graphs.append(graph)
        self._graphs = tuple(graphs)
        self._tensors = _prepare(self._graphs, tensors)
        self._plans: OrderedDict[tuple, list[Plan]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Names, dtypes and shapes of the inputs (of the first image size, if there are several)."""
        return self._graphs[0].inputs

    @property
    def layers(self) -> tuple[LayerRecord, ...]:
        return self._graphs[0].layers

    @property
    def sizes(self) -> tuple[tuple[int | None, int | None], ...]:
        """(height, width) of the images; None where any size goes."""
        return tuple(tuple(graph.inputs[0].shape[-2:]) for graph in self._graphs)

    def __call__(self, *inputs: np.ndarray) -> Any:
        """Run the network.

        Raises:
            ValueError: an input has another type, dtype or shape than the network takes.
        """
        inputs = tuple(map(_array, inputs))
        index = self._choose(inputs)
        graph = self._graphs[index]
        named = {expected.name: array for expected, array in zip(graph.inputs, inputs, strict=True)}
        key = (index, *(array.shape for array in inputs))
        plan = self._borrow(key)
        if plan is None:
            with np.errstate(all="ignore"):
                plan = Plan(graph, self._tensors, named, trace(graph, named, self._tensors))
        try:
            with np.errstate(all="ignore"):  # infinities are results, as in torch
                return plan.run(named)
        finally:
            self._give_back(key, plan)

    def prefer(self, tuning: Tuning) -> int:
        """Let the layers run what the tuning says; returns how many do. Layers it does not know stay as they
        are. Preferences hold for all weights of equal content in this process."""
        checksums = {spec.crc32: name for graph in self._graphs for name, spec in graph.tensors.items()}
        found = 0
        for layer in tuning.layers:
            weight = self._tensors.get(checksums.get(layer.checksum))
            if isinstance(weight, _core.PackedWeight):
                weight.prefer_algorithm(layer.input_size, layer.algorithm)
                found += 1
        return found

    def arena_bytes(self) -> int:
        """Memory that intermediate results take at present, all plans together."""
        with self._lock:
            return sum(plan.arena_bytes for plans in self._plans.values() for plan in plans)

    def _borrow(self, key: tuple) -> Plan | None:
        with self._lock:
            plans = self._plans.get(key)
            return plans.pop() if plans else None

    def _give_back(self, key: tuple, plan: Plan) -> None:
        with self._lock:
            self._plans.setdefault(key, []).append(plan)
            self._plans.move_to_end(key)
            while sum(map(len, self._plans.values())) > _PLANS:
                oldest = next(iter(self._plans))
                if self._plans[oldest]:
                    self._plans[oldest].pop()
                if not self._plans[oldest]:
                    del self._plans[oldest]

    def _choose(self, inputs: tuple) -> int:
        for index, graph in enumerate(self._graphs):
            if len(inputs) == len(graph.inputs) and all(map(_fits, graph.inputs, inputs)):
                return index
        raise ValueError(self._refusal(inputs))

    def _refusal(self, inputs: tuple) -> str:
        expected = self._graphs[0].inputs
        if len(inputs) != len(expected):
            return f"the network takes {len(expected)} inputs, got {len(inputs)}: give {_describe(expected)}"
        for wanted, given in zip(expected, inputs, strict=True):
            if not isinstance(given, np.ndarray):
                return f"{_describe((wanted,))}, but it is a {type(given).__name__}; use np.asarray"
            if given.dtype != np.dtype(wanted.dtype):
                return f"{_describe((wanted,))}, but it is {given.dtype}; use x.astype(np.{wanted.dtype})"
        shapes = ", ".join(str(given.shape) for given in inputs)
        sizes = "" if len(self._graphs) == 1 else f" (the file has the sizes {list(self.sizes)})"
        return (
            f"{_describe(expected)}, but it is {shapes}{sizes}. Column masks and fixed sizes belong to "
            "the example that the model was converted with: resize the input, or convert with an example of "
            "this size"
        )

    def __repr__(self) -> str:
        return f"Network({_describe(self.inputs)}; {len(self.layers)} layers, kernels {_core.kernel_name()})"


def load(path: str | os.PathLike, *, tuned: bool = True) -> Network:
    """Read a converted network (`semisparse.save`) to run it with numpy alone. torch is not imported.

    Args:
        tuned: let layers run the algorithms that `semisparse tune` found on this machine, where that was
            done: they are in `model.tuning.json` beside `model.safetensors`.

    Example::

        network = semisparse.runtime.load("model.safetensors")
        y = network(x)  # x: float32 (N, 3, 224, 224)

    Raises:
        ValueError: the file is damaged, foreign or of a newer format, or calls an operator that this runtime
            lacks; nothing in it is executed.
        OSError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open  # only files need it, not the operators

    path = os.fspath(path)
    with open(path, "rb"):  # a missing or unreadable file is an OSError with the usual text
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            contents = container.parse(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        container.check_tensors(
            contents, tensors, lambda name: zlib.crc32(np.ascontiguousarray(tensors[name]))
        )
        network = Network(contents, tensors)
    except (SafetensorError, *SENSELESS) as error:  # TypeError: also a dtype that numpy lacks
        raise ValueError(f"{path} is not a usable semisparse model: {error}") from error
    if tuned and (found := tuning_file.read(path, _core.get_num_threads())) is not None:
        network.prefer(found)
    return network


def _check_specs(graph: Graph, tensors: dict[str, np.ndarray]) -> None:
    if any(i.dtype == "float16" for i in graph.inputs):
        raise ValueError(
            "it is a network in half precision, which needs torch: save model.float() for this runtime"
        )
    for name, spec in graph.tensors.items():
        if name not in tensors:
            raise ValueError(f"the tensor {name!r} is missing; write the file again with semisparse.save")
        found = TensorSpec(str(tensors[name].dtype), tensors[name].shape)
        if (found.dtype, found.shape) != (spec.dtype, spec.shape):
            raise ValueError(
                f"tensor {name!r} is {found.dtype} {found.shape}, but declared as {spec.dtype} {spec.shape}; "
                "write the file again with semisparse.save"
            )


def _prepare(graphs: tuple[Graph, ...], tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The constants, with weights of convolutions made ready for the kernels once."""
    prepared: dict[str, Any] = dict(tensors)
    for graph in graphs:
        for node in graph.nodes:
            if node.op == "semisparse.linear.default":
                _, weight, shape, *_ = node.args
                if isinstance(weight, TensorRef):
                    prepared[weight.name] = _packed(prepared[weight.name], node, weight, (*shape, 1, 1), 1)
                continue
            weight, groups = _weight(node)
            if not isinstance(weight, TensorRef):
                continue
            if node.op == "semisparse.conv2d.packed":
                given = convolution_arguments(node.op, node.args, node.kwargs)
                shape = tuple(given["weight_shape"])
                prepared[weight.name] = _packed(prepared[weight.name], node, weight, shape, groups)
            elif isinstance(prepared[weight.name], _core.PackedWeight):
                continue
            elif _only_weight(graphs, node, weight):
                bytes_ = _core.pack_weight(tensors[weight.name] + np.float32(0), groups)
                prepared[weight.name] = _core.PackedWeight(bytes_)
    return prepared


def _packed(
    held: Any, node: Node, weight: TensorRef, shape: tuple[int, ...], groups: int
) -> _core.PackedWeight:
    """The packed weight of a node, whose bytes or prepared form is `held`."""
    packed = held if isinstance(held, _core.PackedWeight) else _core.PackedWeight(held)
    if (packed.shape, packed.groups) != (shape, groups):
        raise ValueError(
            f"node {node.name!r} wants a weight of shape {shape} in {groups} groups, but {weight.name!r} "
            f"holds {packed.shape} in {packed.groups}; write the file again with semisparse.save"
        )
    return packed


def _weight(node: Node) -> tuple[Any, int]:
    """The weight of a convolution or linear layer and its groups; of other nodes None."""
    if node.op == "aten.linear.default":
        return node.kwargs.get("weight", *node.args[1:2]), 1
    if "conv2d" not in node.op:
        return None, 1
    given = convolution_arguments(node.op, node.args, node.kwargs)
    return given["weight"], given["groups"]


def _only_weight(graphs: tuple[Graph, ...], reader: Node, tensor: TensorRef) -> bool:
    """Whether a constant is the weight of layers of the kind of `reader`, and nothing else."""
    kind = "linear" in reader.op
    for graph in graphs:
        if (spec := graph.tensors.get(tensor.name)) and (spec.dtype != "float32" or len(spec.shape) < 2):
            return False
        for node in graph.nodes:
            uses = sum(ref == tensor for ref in references((node.args, node.kwargs)))
            if uses == 0:
                continue
            weight, _ = _weight(node)
            if weight != tensor or uses > 1 or ("linear" in node.op) != kind:
                return False
        if any(ref == tensor for ref in references(graph.output)):
            return False
    return True


def _array(given: Any) -> Any:
    """`given` as a numpy array that shares its memory; anything that cannot be one, as it is."""
    if isinstance(given, np.ndarray) or not hasattr(given, "__dlpack__"):
        return given
    try:
        return np.from_dlpack(given)
    except (
        BufferError,
        RuntimeError,
        TypeError,
    ) as error:  # a GPU's, one with a gradient, bfloat16
        raise ValueError(
            f"a {type(given).__name__} was given that numpy cannot read: {error}; use np.asarray"
        ) from error


def _fits(expected: Input, given: Any) -> bool:
    return (
        isinstance(given, np.ndarray)
        and given.dtype == np.dtype(expected.dtype)
        and given.ndim == len(expected.shape)
        and all(
            size >= low if wanted is None else size == wanted
            for size, wanted, low in zip(given.shape, expected.shape, expected.minimum, strict=True)
        )
    )


def _describe(inputs: tuple[Input, ...]) -> str:
    parts = []
    for expected in inputs:
        sizes = ", ".join(
            str(size) if size is not None else f">={low}"
            for size, low in zip(expected.shape, expected.minimum, strict=True)
        )
        parts.append(f"{expected.name} must be a {expected.dtype} array of shape ({sizes})")
    return "; ".join(parts)
