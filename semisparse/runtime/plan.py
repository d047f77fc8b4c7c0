"""From a graph and the shapes of its inputs to a list of calls on fixed memory.

The first input of a shape runs operator by operator, which tells the shape of every value. From that, once:

- values that depend on shapes only (anchors, grids) are kept as constants;
- views become numpy views of fixed memory, which cost nothing afterwards;
- a concatenation whose parts lie behind each other in memory (any at batch 1) vanishes: its operands are
  computed where the result wants them;
- all remaining results share one block of memory by liveness (`arena`).

What is left for later inputs is the list of computing calls, their arguments bound. Those of cpp/core, which
are nearly all, are made in sequence without Python.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from semisparse import _core
from semisparse.graph import Graph, Node, Ref, TensorRef, references, transform
from semisparse.runtime import arena
from semisparse.runtime.operators import (
    BINDERS,
    COMPUTE,
    VALUES,
    VIEWS,
    concatenation_axis,
    convolution_arguments,
)

__all__ = ["SENSELESS", "Plan", "check_operators", "trace"]

Values = dict[str, Any]
# What Python raises where a graph calls an operator with arguments that make no sense.
SENSELESS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def check_operators(graph: Graph) -> None:
    """ValueError naming the operators that this runtime lacks, if there are any."""
    missing = {node.op: node.name for node in reversed(graph.nodes) if not _known(node.op)}
    if missing:
        names = ", ".join(f"{op} (node {name!r})" for op, name in sorted(missing.items()))
        raise ValueError(
            f"the network calls operators that semisparse.runtime lacks: {names}. Run it with torch, by "
            "semisparse.load; or leave that part out of the converted network and do it in numpy"
        )


def _known(op: str) -> bool:
    return op in COMPUTE or op in VIEWS or op in VALUES


def call(node: Node, values: Values, tensors: Values) -> tuple[Callable, list, dict[str, Any]]:
    """The function that a node calls, with its arguments: values by name, constant tensors from `tensors`."""

    def resolve(value: Any) -> Any:
        if isinstance(value, Ref):
            return values[value.name]
        return tensors[value.name] if isinstance(value, TensorRef) else value

    args = [transform(arg, resolve) for arg in node.args]
    kwargs = {key: transform(arg, resolve) for key, arg in node.kwargs.items()}
    if "conv2d" in node.op:
        args, kwargs = [], convolution_arguments(node.op, args, kwargs)
        kwargs.pop("weight_shape", None)
    function = COMPUTE.get(node.op) or VIEWS.get(node.op) or VALUES[node.op]
    return function, args, kwargs


def trace(graph: Graph, inputs: Values, tensors: Values) -> Values:
    """Run the graph operator by operator and return every value, by name.

    Raises:
        ValueError: a node's arguments do not fit its operator, or each other; names the node.
    """
    values = dict(inputs)
    for node in graph.nodes:
        try:
            function, args, kwargs = call(node, values, tensors)
            value = function(*args, **kwargs)
        except (*SENSELESS, MemoryError) as error:
            raise ValueError(f"node {node.name!r} cannot compute {node.op}: {error}") from error
        # As it will lie in the plan's memory: whether a view of it is possible depends on that.
        values[node.name] = np.asarray(value, order="C") if node.op in COMPUTE else value
    return values


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    return [array for item in value for array in _arrays(item)] if isinstance(value, (list, tuple)) else []


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _sequences(steps: list[Callable[[], Any]]) -> list[Callable[[], Any]]:
    """The same steps with neighbouring calls of cpp/core in one."""
    joined: list[Callable[[], Any]] = []
    for native, group in itertools.groupby(steps, lambda step: isinstance(step, _core.Call)):
        calls = list(group)
        joined += [_core.Sequence(calls)] if native else calls
    return joined


@dataclass
class _Storage:
    """The memory of one computed value. `parent`: lies inside that of another, at `offset` bytes."""

    array: np.ndarray  # of the trace
    first: int
    last: int
    parent: str | None = None
    offset: int = 0


class Plan:
    """Runs a graph for inputs of one shape. Not safe to use from two threads at once: the memory is its own.

    Args:
        graph: the network.
        tensors: its constants: arrays, and prepared weights in place of packed bytes.
        inputs: arrays of the shapes that the plan is for.
        values: what `trace` returned for these inputs.
    """

    def __init__(self, graph: Graph, tensors: Values, inputs: Values, values: Values):
        self.graph = graph
        self.tensors = tensors
        self._live: Values = dict(inputs)  # inputs and views of them, which change with every call
        self._views: list[Node] = []  # of the inputs
        self._steps: list[Callable[[], Any]] = []
        self._readers: list[tuple[_core.Call, str]] = []  # calls whose input is one of `_live`
        self._classify(values)
        self._join(values)
        self._build()
        del self._storages, self._home

    def run(self, inputs: Values) -> Any:
        """The output for `inputs`; its arrays are the caller's."""
        self._live.update(inputs)
        try:
            for node in self._views:
                self._follow(node)
            for call, name in self._readers:
                call.rebind(self._live[name])
            for step in self._steps:
                step()
            return transform(self.graph.output, self._result)
        finally:  # the caller's arrays are not kept alive
            self._live = dict.fromkeys(self._live)
            for call, _ in self._readers:
                call.rebind(None)

    def _result(self, leaf: Any) -> Any:
        if not isinstance(leaf, (Ref, TensorRef)):
            return leaf
        value = self.tensors[leaf.name] if isinstance(leaf, TensorRef) else self._value(leaf.name)
        if isinstance(value, np.ndarray):  # nearly always; Python code is cold after an inference
            return value.copy()
        return transform(value, lambda item: item.copy() if isinstance(item, np.ndarray) else item)

    def _value(self, name: str) -> Any:
        return self._live[name] if name in self._live else self._fixed[name]

    def _classify(self, values: Values) -> None:
        """Which nodes are constant, which follow the inputs (views of them), which compute; and the storage
        of each computed value with the steps between which it is needed."""
        self._storages: dict[str, _Storage] = {}
        self._home: dict[str, set[str]] = {}  # value -> the storages that it lies in
        self._fixed: Values = {}
        self._computing: set[str] = set()
        changing = set(self._live)
        for step, node in enumerate(self.graph.nodes):
            sources = [ref.name for ref in references((node.args, node.kwargs)) if isinstance(ref, Ref)]
            home = set().union(*(self._home.get(name, ()) for name in sources))
            for name in home:
                self._storages[name].last = step
            value = values[node.name]
            if node.op in VALUES or not changing.intersection(sources):
                self._fixed[node.name] = value
                continue
            changing.add(node.name)
            if node.op in VIEWS and self._shares(node, value, sources, values):
                if home:
                    self._home[node.name] = home
                else:
                    self._live[node.name] = value
                continue
            self._computing.add(node.name)
            self._home[node.name] = {node.name}
            self._storages[node.name] = _Storage(value, step, step)
        for ref in references(self.graph.output):
            for name in self._home.get(ref.name, ()):
                self._storages[name].last = len(self.graph.nodes)

    @staticmethod
    def _shares(node: Node, value: Any, sources: list[str], values: Values) -> bool:
        if node.op == "operator.getitem":
            return True
        memory = [array for name in sources for array in _arrays(values[name])]
        return all(any(np.may_share_memory(part, whole) for whole in memory) for part in _arrays(value))

    def _join(self, values: Values) -> None:
        """Let the operands of concatenations be computed inside the result, where that is contiguous."""
        self._elided: set[str] = set()
        for node in self.graph.nodes:
            axis = concatenation_axis(node.op, node.args, node.kwargs)
            if axis is None or node.name not in self._computing:
                continue
            result = values[node.name]
            if math.prod(result.shape[: axis % result.ndim]) != 1:
                continue
            position, elided = 0, True
            wanted: dict[
                str, list[tuple[int, int, int]]
            ] = {}  # storage -> (at in result, at in storage, bytes)
            for operand in node.args[0]:
                array = values[operand.name] if isinstance(operand, Ref) else None
                home = self._home.get(operand.name, set()) if isinstance(operand, Ref) else set()
                nbytes = array.nbytes if array is not None else 0
                if len(home) == 1 and array.flags.c_contiguous and array.dtype == result.dtype:
                    (name,) = home
                    at = _address(array) - _address(self._storages[name].array)
                    wanted.setdefault(name, []).append((position, at, nbytes))
                else:
                    elided = False
                if array is None:
                    nbytes = self.tensors[operand.name].nbytes
                position += nbytes
            placed = [name for name, parts in wanted.items() if self._place(name, parts, node.name)]
            if elided and len(placed) == len(wanted):
                self._elided.add(node.name)

    def _place(self, name: str, parts: list[tuple[int, int, int]], parent: str) -> bool:
        """Put a storage into that of a concatenation, if every byte of it belongs there once and in order."""
        storage = self._storages[name]
        if storage.parent is not None or storage.array.nbytes == 0:
            return False
        end = 0
        for position, at, nbytes in parts:
            if at != end or position - at != parts[0][0]:
                return False
            end += nbytes
        if end != storage.array.nbytes:
            return False
        storage.parent, storage.offset = parent, parts[0][0]
        return True

    def _build(self) -> None:
        constant = set(self._fixed)
        self._allocate()
        for node in self.graph.nodes:
            name = node.name
            if name in constant or name in self._elided:
                continue
            refs = [ref.name for ref in references((node.args, node.kwargs)) if isinstance(ref, Ref)]
            follows_input = any(ref in self._live for ref in refs)
            if name in self._live:
                self._views.append(node)
            elif name not in self._computing:
                function, args, kwargs = call(node, self._fixed, self.tensors)
                self._fixed[name] = function(*args, **kwargs)
            elif follows_input:
                self._steps.append(self._reader(node) or partial(self._compute, node, self._fixed[name]))
            else:
                self._steps.append(self._bound(node, self._fixed, self._fixed[name]))
        self._steps = _sequences(self._steps)

    def _bound(self, node: Node, values: Values, out: np.ndarray) -> Callable:
        function, args, kwargs = call(node, values, self.tensors)
        if node.op in VIEWS:  # a view that numpy cannot make: a copy at every call
            return lambda: np.copyto(out, function(*args, **kwargs))
        if function in BINDERS:
            bound = BINDERS[function](*args, out=out, **kwargs)
            if bound is not None and bound.reads_in_place:
                return bound
        return partial(function, *args, out=out, **kwargs)

    def _reader(self, node: Node) -> _core.Call | None:
        """The call of a node that reads an input, or a view of one, as its first argument only."""
        refs = [ref.name for ref in references((node.args, node.kwargs)) if isinstance(ref, Ref)]
        first = node.args[0] if node.args else None
        given = self._live.get(first.name) if isinstance(first, Ref) else None
        if not isinstance(given, np.ndarray) or sum(name in self._live for name in refs) > 1:
            return None
        like = np.empty_like(given, order="C")  # readable in place, as arrays usually are
        bound = self._bound(node, {**self._fixed, first.name: like}, self._fixed[node.name])
        if not isinstance(bound, _core.Call):
            return None
        self._readers.append((bound, first.name))
        return bound

    def _follow(self, node: Node) -> None:
        function, args, kwargs = call(node, self._live, self.tensors)
        self._live[node.name] = function(*args, **kwargs)

    def _compute(self, node: Node, out: np.ndarray) -> None:
        self._bound(node, {**self._fixed, **self._live}, out)()

    def _allocate(self) -> None:
        """Memory for every storage; `_fixed` gets the arrays."""
        for storage in self._storages.values():  # children are needed at most as long as their parents are
            parent = storage
            while parent.parent is not None:
                parent = self._storages[parent.parent]
                parent.first = min(parent.first, storage.first)
                parent.last = max(parent.last, storage.last)
        roots = [name for name, storage in self._storages.items() if storage.parent is None]
        buffers = [
            arena.Buffer(
                self._storages[name].array.nbytes, self._storages[name].first, self._storages[name].last
            )
            for name in roots
        ]
        offsets, self.arena_bytes = arena.place(buffers)
        memory = arena.allocate(self.arena_bytes)
        start = dict(zip(roots, offsets, strict=True))
        for name, storage in self._storages.items():
            at, parent = 0, name
            while self._storages[parent].parent is not None:
                at += self._storages[parent].offset
                parent = self._storages[parent].parent
            at += start[parent]
            piece = memory[at : at + storage.array.nbytes]
            self._fixed[name] = piece.view(storage.array.dtype).reshape(storage.array.shape)
