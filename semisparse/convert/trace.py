"""From a module to a clean operator graph.

The graph comes from `torch.export`, whose result is a torch.fx graph. Symbolic tracing
(`torch.fx.symbolic_trace`) was not chosen: it stops at any control flow on shapes or module attributes,
which detection models are full of, and it sees modules where export sees operators, so that `F.relu`,
`nn.ReLU` and `x.relu_()` would each need a rule of their own.

Column masks arrive in the graph as calls of a marker operator right after their convolution: on the copy
that is traced, the masking hook is replaced by one that calls the marker. So a mask belongs to a call, not
to a parameter's name, and tied weights, modules used twice and functional uses of a masked module's weight
come out right.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, library, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from semisparse import masking

__all__ = ["MASK_MARKER", "Traced", "arguments", "trace"]

# Namespace of its own: `semisparse` belongs to the C++ library, and this operator never leaves a conversion.
library.define("semisparse_convert::mask_columns", "(Tensor output, Tensor mask) -> Tensor")
MASK_MARKER = torch.ops.semisparse_convert.mask_columns.default


@library.impl("semisparse_convert::mask_columns", "default")
def _mask_columns(output: Tensor, mask: Tensor) -> Tensor:
    return output * mask.to(output.dtype)


@library.register_fake("semisparse_convert::mask_columns")
def _mask_columns_fake(output: Tensor, mask: Tensor) -> Tensor:
    return torch.empty_like(output)


@dataclass
class Traced:
    """A graph of functional operators (where they could be made so) and what its placeholders stand for.

    Attributes:
        graph: nodes in execution order, their example values under ``meta["val"]``.
        constants: node -> tensor, for parameters, buffers, and everything computed from these alone.
        inputs: placeholders of the model's inputs, in order.
        free: per input, per dimension, the minimum of a size that is free, or None for a fixed one.
        output: the model's output as nested tuples, lists and dicts whose leaves are nodes or constants.
    """

    graph: fx.Graph
    constants: dict[fx.Node, Tensor]
    inputs: list[fx.Node]
    free: list[tuple[int | None, ...]]
    output: Any


def trace(model: nn.Module, example: Sequence[Tensor], free_size: bool = True) -> Traced:
    """Export an eval-mode copy of `model` on the CPU and clean up its graph.

    Height and width are left free if `free_size`, no layer has a column mask, and the model allows it.

    Raises:
        ValueError: the model cannot be captured as a graph, changes its own state, or returns unknown
            containers.
    """
    model = _copy(model).cpu().eval()
    masked = masking.masked_modules(model)
    for module in masked.values():
        _replace_hook(module)
    program, free = _export(model, [x.detach().cpu() for x in example], free_size and not masked)
    graph = program.graph
    constants = _constants(program)
    inputs = [node for node in graph.nodes if node.op == "placeholder" and node not in constants]
    _refuse_control_flow(graph)
    _remove_identities(graph)
    _make_functional(graph, constants)
    _fold_constants(graph, constants)
    return Traced(graph, constants, inputs, free, _output(program))


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an operator call by name, defaults included."""
    schema = node.target._schema
    values = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    for argument in schema.arguments:
        if argument.name not in values:
            values[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return values


def _copy(model: nn.Module) -> nn.Module:
    # Re-parametrisations (torch.nn.utils.prune) keep computed tensors as attributes, which deepcopy refuses.
    computed = [
        v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor) and not v.is_leaf
    ]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})


def _replace_hook(module: nn.Module) -> None:
    for key, hook in module._forward_hooks.items():
        if hook is masking._multiply_by_mask:
            module._forward_hooks[key] = _mark


def _mark(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    mask = masking.column_mask(module)
    if output.shape[-2:] != mask.shape:
        raise ValueError(
            f"a column mask has size {tuple(mask.shape)}, but its convolution's output is "
            f"{tuple(output.shape[-2:])}; convert with an example input of the size that the masks are for"
        )
    return MASK_MARKER(output, mask)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Free sizes make torch log pages about inequalities that it cannot simplify; nothing depends on that."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Positional(nn.Module):
    """Gives every model the same signature, so that shapes and guards have known names."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *args: Tensor):
        return self.model(*args)


def _export(model: nn.Module, example: list[Tensor], free_size: bool) -> tuple[ExportedProgram, list[tuple]]:
    """Export with as many free sizes as the model allows: batch, height and width; batch; none."""
    # An example batch of 1 would be taken for a constant; values do not matter, shapes do.
    doubled = [x if x.dim() == 0 or x.shape[0] != 1 else torch.cat([x, x]) for x in example]
    attempts: list[tuple[list[Tensor], tuple[int, ...]]] = [(doubled, (0,)), (example, ())]
    if free_size:
        attempts.insert(0, (doubled, (0, 2, 3)))
    error: Exception = ValueError("torch.export fixed a size that it was asked to leave free")
    for tensors, free_dims in attempts:
        dims = [{d: Dim.AUTO for d in free_dims if d < x.dim() and (d == 0 or x.dim() == 4)} for x in tensors]
        try:
            with torch.no_grad(), _quiet():
                program = torch.export.export(
                    _Positional(model), tuple(tensors), dynamic_shapes=(tuple(dims),), strict=False
                )
        except Exception as failure:  # whatever the model's own code raises
            error = failure
            continue
        minimum = _minimum_sizes(program, tensors)
        if minimum is not None and all(
            low is not None or given == used
            for lows, x, y in zip(minimum, example, tensors, strict=True)
            for low, given, used in zip(lows, x.shape, y.shape, strict=True)
        ):
            return program, minimum
    if isinstance(error, ValueError) and "column mask" in str(error):
        raise error
    first_line = str(error).partition("\n")[0]
    raise ValueError(
        "this model cannot be captured as a graph. torch.export, which does this, needs an example_input "
        "that the model accepts, and a forward pass whose control flow is independent of tensor values: "
        f"{type(error).__name__}: {first_line}"
    ) from error


def _minimum_sizes(program: ExportedProgram, tensors: list[Tensor]) -> list[tuple[int | None, ...]] | None:
    """Per input and dimension the minimum of a free size, None for a fixed one.

    A graph with free sizes is only right where the conditions hold that the model's Python code tested while
    it was traced. This tries them on a range of sizes. If they do not hold for all larger ones, the result is
    None, and something must be fixed.
    """
    names = program.graph_signature.user_inputs
    inputs = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    sizes = [node.meta["val"].shape for node in inputs]
    free = {(i, d) for i, shape in enumerate(sizes) for d, n in enumerate(shape) if not isinstance(n, int)}
    minimum = {(i, d): 1 if d == 0 else tensors[i].shape[d] for i, d in free}
    guards = getattr(program, "_guards_code", None)  # of torch 2.10 and newer; fixed sizes need none
    spatial = [key for key in free if key[1] > 0]
    if spatial and guards is None:
        return None
    if free and guards is not None:
        compiled = [compile(guard, "<guard>", "eval") for guard in guards]

        def hold(batch: int, height: Callable[[int], int], width: Callable[[int], int]) -> bool:
            scale = {0: lambda n: batch, 2: height, 3: width}
            return _hold(
                compiled,
                [
                    [scale[d](n) if (i, d) in free else n for d, n in enumerate(x.shape)]
                    for i, x in enumerate(tensors)
                ],
            )

        larger = [lambda n, k=k: n + k for k in range(9)]
        larger += [lambda n, k=k: k * n + k // 2 for k in (2, 3, 4, 7)]
        tall = [(height, larger[0]) for height in larger] + [(larger[0], width) for width in larger]
        if not all(
            hold(batch, *size) for batch in (2, 3, 64) for size in [*tall, *zip(larger, larger, strict=True)]
        ):
            return None
        same = larger[0]
        below = 0  # how far all sizes can shrink together
        limit = min((tensors[i].shape[d] for i, d in spatial), default=1) - 1
        while below < limit:

            def less(n: int, b: int = below + 1) -> int:
                return n - b

            if not (hold(2, less, less) and hold(2, less, same) and hold(2, same, less)):
                break
            below += 1
        for key in spatial:
            minimum[key] -= below
    return [tuple(minimum.get((i, d)) for d in range(len(shape))) for i, shape in enumerate(sizes)]


class _Shape:
    """Stands for a tensor in a guard such as ``L['args'][0].size()[2] >= 7``."""

    def __init__(self, shape: list[int]):
        self.shape = shape

    def size(self) -> list[int]:
        return self.shape


def _hold(guards: list, shapes: list[list[int]]) -> bool:
    scope = {
        "L": {"args": [_Shape(shape) for shape in shapes]},
        "max": max,
        "min": min,
        "math": math,
        "torch": torch,
    }
    try:
        # The text is torch's own, made from the model's code: it comes from no file.
        return all(eval(guard, {"__builtins__": {}}, scope) for guard in guards)
    except (NameError, AttributeError, KeyError, IndexError, TypeError, ArithmeticError):
        return False  # a condition on something else than sizes


def _constants(program: ExportedProgram) -> dict[fx.Node, Tensor]:
    values = {**program.state_dict, **program.constants}
    constants = {}
    specs = {
        spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None
    }
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in specs:
            value = values[specs[node.name]]
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"{specs[node.name]} is a {type(value).__name__}, which a converted model cannot hold"
                )
            node.meta["semisparse_name"] = specs[node.name].removeprefix("model.")
            constants[node] = value.detach()
    return constants


def _refuse_control_flow(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            raise ValueError(
                f"the graph holds {node.target}, which is control flow (torch.cond, another higher-order "
                "operator, autocast); convert the part of the model without it"
            )


# Operators that do nothing at inference. Assertions repeat what export has proved or the operators check.
_IDENTITIES = frozenset(
    """
    dropout dropout_ feature_dropout feature_dropout_ alpha_dropout alpha_dropout_
    feature_alpha_dropout detach detach_ alias lift_fresh
    """.split()
)
_ASSERTIONS = frozenset(
    """
    _assert_scalar _assert_async _assert_tensor_metadata sym_constrain_range
    sym_constrain_range_for_size
    """.split()
)


def _operator_name(node: fx.Node) -> str:
    """'relu_' for aten.relu_.default; '' for anything that is no ATen operator."""
    if (
        node.op == "call_function"
        and isinstance(node.target, torch._ops.OpOverload)
        and node.target.namespace == "aten"
    ):
        return node.target.overloadpacket.__name__
    return ""


def _remove_identities(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        name = _operator_name(node)
        training = name.count("dropout") and arguments(node)["train"]
        if name in _IDENTITIES and not training:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif name in _ASSERTIONS and not node.users:
            graph.erase_node(node)


# Results that never share memory with an argument, although these operators are composite (see `_aliases`).
_FRESH = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d batch_norm instance_norm
    group_norm layer_norm linear matmul max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest2d upsample_bilinear2d
    upsample_bicubic2d relu6 silu mish selu softmax log_softmax scaled_dot_product_attention where
    cat concat stack embedding rms_norm square
    """.split()
)


def _aliases(node: fx.Node) -> list[fx.Node]:
    """Arguments whose memory the result of `node` may share (all that cannot be excluded)."""
    if node.target is operator.getitem:
        return [node.args[0]]
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    annotated = _annotated(node, write=False)
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(
        node.target.name(), "CompositeImplicitAutograd"
    )
    if annotated or not composite or _operator_name(node) in _FRESH:
        return annotated
    # Composite operators may return an argument unchanged without saying so in their schema, as dropout does.
    return [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), (Tensor, list, tuple))]


def _annotated(node: fx.Node, write: bool) -> list[fx.Node]:
    """Arguments that the schema says are aliased by the result or, if `write`, changed in place."""
    found: list[fx.Node] = []
    values = arguments(node)
    for argument in node.target._schema.arguments:
        info = argument.alias_info
        if info is not None and (info.is_write or not write):
            fx.map_arg(values[argument.name], found.append)
    return found


def _make_functional(graph: fx.Graph, constants: dict[fx.Node, Tensor]) -> None:
    """Replace in-place operators (`relu_`) by functional ones (`relu`) where nobody else could see it.

    The others stay, in place and in order; `semisparse.convert.fuse` moves nothing across them.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    parent: dict[fx.Node, fx.Node] = {}

    def root(node: fx.Node) -> fx.Node:
        while parent.get(node, node) is not node:
            node = parent[node]
        return node

    sharing: dict[fx.Node, list[fx.Node]] = {}  # root -> nodes that may share memory, of those seen so far
    for node in list(graph.nodes):
        if node.op == "output":
            break
        group = [node]
        aliases = _aliases(node) if node.op == "call_function" else []
        if is_mutating(node):
            changed = [other for n in _annotated(node, write=True) for other in sharing[root(n)]]
            for other in changed:
                if other in constants:
                    raise ValueError(
                        f"the model changes {other.meta['semisparse_name']} while it runs; only models "
                        "without state of their own can be converted"
                    )
            if all(order[user] <= order[node] for other in changed for user in other.users):
                functional = _functional(node)
                if functional is not None:
                    node.target, aliases = functional, []
        for alias in {root(alias) for alias in aliases}:
            group += sharing.pop(alias)
            parent[alias] = node
        sharing[node] = group


def is_mutating(node: fx.Node) -> bool:
    """Whether an operator changes one of its arguments."""
    return (
        node.op == "call_function"
        and isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
    )


def _functional(node: fx.Node):
    """The operator that computes what the in-place one leaves in its first argument."""
    name = _operator_name(node)
    tensors = [
        value.meta["val"] for value in node.all_input_nodes if isinstance(value.meta.get("val"), Tensor)
    ]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    # An in-place operator keeps its argument's dtype, a functional one would promote.
    if not name.endswith("_") or packet is None or len({x.dtype for x in tensors}) != 1:
        return None
    overload = getattr(packet, node.target._overloadname, None)
    if overload is None:
        return None
    ours, theirs = ([(a.name, str(a.type)) for a in f._schema.arguments] for f in (node.target, overload))
    return overload if ours == theirs[: len(ours)] and not overload._schema.is_mutable else None


def _fold_constants(graph: fx.Graph, constants: dict[fx.Node, Tensor]) -> None:
    """Compute what depends on parameters and buffers alone, such as normalised weights and pruning masks."""
    for node in graph.nodes:
        nodes = node.all_input_nodes
        if node.op != "call_function" or not nodes or not all(n in constants for n in nodes):
            continue
        deterministic = (
            isinstance(node.target, torch._ops.OpOverload)
            and torch.Tag.nondeterministic_seeded not in node.target.tags
        )
        if not deterministic or node.target is MASK_MARKER or not isinstance(node.meta.get("val"), Tensor):
            continue
        with torch.no_grad():
            value = node.target(
                *fx.map_arg(node.args, constants.get), **fx.map_arg(node.kwargs, constants.get)
            )
        constants[node] = value.detach()


def _output(program: ExportedProgram) -> Any:
    (flat,) = next(node for node in program.graph.nodes if node.op == "output").args
    return _plain(pytree.tree_unflatten(list(flat), program.call_spec.out_spec))


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):  # a named tuple becomes a plain one: its class would have to be stored
        return tuple(_plain(item) for item in value)
    if value is None or isinstance(value, (fx.Node, bool, int, float, str)):
        return value
    raise ValueError(
        f"the model returns a {type(value).__name__}; a converted model can return tensors, numbers, text, "
        "and tuples, lists and dicts (with text keys) of them"
    )
