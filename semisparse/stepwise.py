"""Time of every operator call of a converted network, in its place: with the caches as the network leaves
them."""

from __future__ import annotations

import re
import statistics
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from semisparse.converted import ConvertedModel, resolve

__all__ = ["PACKED_CONVOLUTION", "Stepwise", "fixed_threads", "input_sizes", "time_steps"]

PACKED_CONVOLUTION = "semisparse.conv2d.packed"


class Stepwise:
    """A converted network whose forward pass notes the time after every node of the graph."""

    def __init__(self, model: ConvertedModel):
        self.model = model
        self.names = [node.name for node in model.graph.nodes]
        self._stamps: list[float] = []
        lines = []
        known = set(self.names)
        for line in model.code.splitlines():
            lines.append(line)
            assigned = re.match(r"    (\w+) = ", line)
            if assigned and (assigned[1] in known or assigned[1] == "_buffers"):
                lines.append("    _stamp(_clock())")
        names = dict(model.forward.__func__.__globals__)
        names |= {"_stamp": self._stamps.append, "_clock": time.perf_counter}
        exec(compile("\n".join(lines), "<semisparse timed model>", "exec"), names)  # the model's own code
        self._forward = types.MethodType(names["forward"], model)

    def run(self, inputs: Sequence[Tensor]) -> list[float]:
        """One forward pass: seconds of each node, in the order of `names`."""
        self._stamps.clear()
        self._forward(*inputs)
        return [after - before for before, after in zip(self._stamps, self._stamps[1:], strict=False)]


def time_steps(
    variants: Mapping[str, tuple[ConvertedModel, Callable[[], AbstractContextManager]]],
    inputs: Sequence[Tensor],
    *,
    rounds: int,
    warmup: int = 2,
) -> dict[str, dict[str, float]]:
    """Median milliseconds of every node of several networks, their passes interleaved.

    Args:
        variants: label -> network, and what makes the context that its passes run in.
        inputs: what their forward takes.
        rounds: passes of each, after `warmup` that do not count.

    Returns:
        By label and node name.
    """
    steps = {label: (Stepwise(model), context) for label, (model, context) in variants.items()}
    found: dict[str, list[list[float]]] = {label: [] for label in variants}
    with torch.inference_mode():
        for round_ in range(-warmup, rounds):
            for label, (network, context) in steps.items():
                with context():
                    network.run(inputs)  # its own weights into the caches, as in a loop over one network
                    times = network.run(inputs)
                if round_ >= 0:
                    found[label].append(times)
    return {
        label: {
            name: 1e3 * statistics.median(times)
            for name, times in zip(network.names, zip(*found[label], strict=True), strict=True)
        }
        for label, (network, _) in steps.items()
    }


@contextmanager
def fixed_threads(threads: int | None) -> Iterator[int]:
    """Run with `torch.set_num_threads(threads)`, then restore the setting; None leaves it. Yields the number.

    Raises:
        ValueError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def input_sizes(model: ConvertedModel, inputs: Sequence[Tensor]) -> dict[str, tuple[int, int]]:
    """Height and width of the input of every packed convolution, by node name, from one forward pass."""
    names = iter([node.name for node in model.graph.nodes if node.op == PACKED_CONVOLUTION])
    sizes: dict[str, tuple[int, int]] = {}
    operator = resolve(PACKED_CONVOLUTION)

    def record(x: Tensor, *args, **kwargs) -> Tensor:
        sizes[next(names)] = tuple(x.shape[-2:])
        return operator(x, *args, **kwargs)

    function = model.forward.__func__
    names_in_code = {k: record if v is operator else v for k, v in function.__globals__.items()}
    with torch.inference_mode():
        types.FunctionType(function.__code__, names_in_code)(model, *inputs)
    return sizes
