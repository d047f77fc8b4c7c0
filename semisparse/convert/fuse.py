"""Which operators around a convolution or linear layer become part of it.

`semisparse::conv2d` computes ``a(m * (conv + bias) + (1 - m) * fill + residual)``. So a chain

    conv2d -> [column mask] -> [batch_norm] -> [add] -> [activation]

of operators, each the only user of the one before, is one call, placed where the chain ends: there all its
inputs exist. Of two convolutions that are added, one takes the other's result as its residual; it is the
one that comes last, so that the order of execution stays as it was. `semisparse::linear` takes an
activation only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from semisparse.convert.trace import MASK_MARKER, Traced, arguments, is_mutating

__all__ = ["Fusion", "plan"]

aten = torch.ops.aten
_CONV = {aten.conv2d.default, aten.conv2d.padding}
_OTHER_CONV = {
    aten.conv1d.default: "conv1d",
    aten.conv3d.default: "conv3d",
    aten.conv_transpose1d.default: "conv_transpose1d",
    aten.conv_transpose2d.input: "conv_transpose2d",
    aten.conv_transpose3d.input: "conv_transpose3d",
}


@dataclass
class Fusion:
    """A convolution or linear layer and what is fused into it.

    Attributes:
        node: the convolution's (or linear layer's) own node.
        kind: conv2d, conv1d, conv3d, conv_transpose*d or linear.
        last: the node whose value the fused call computes.
        mask_node, batch_norm, add: the fused nodes of these roles.
        mask: bool (OH, OW), or None where all columns are computed.
        residual: the node that is added.
        activation: name in the operator's vocabulary.
        stride, padding, dilation: as integers, also where the model says "same".
        packed: whether `semisparse::conv2d` or `semisparse::linear` computes it; nothing is fused otherwise.
        reasons: why not, or why its mask or the zeros of its weight are not used.
        notes: why something next to it is not fused.
    """

    node: fx.Node
    kind: str
    last: fx.Node
    mask_node: fx.Node | None = None
    mask: Tensor | None = None
    batch_norm: fx.Node | None = None
    add: fx.Node | None = None
    residual: fx.Node | None = None
    activation: str = "none"
    stride: list[int] = field(default_factory=list)
    padding: list[int] = field(default_factory=list)
    dilation: list[int] = field(default_factory=list)
    packed: bool = False
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(traced: Traced) -> list[Fusion]:
    """All convolutions and linear layers in execution order, with what is fused into each."""
    planner = _Planner(traced)
    found = [planner.start(node) for node in traced.graph.nodes if node.op == "call_function"]
    fusions = [fusion for fusion in found if fusion is not None and fusion.node not in traced.constants]
    for fusion in reversed(fusions):  # backwards: the last convolution before an addition gets it
        if fusion.packed and fusion.kind == "linear":
            planner.extend_activation(fusion)
        elif fusion.packed:
            planner.extend(fusion)
    _report_separate_masks(traced, fusions)
    return fusions


def _report_separate_masks(traced: Traced, fusions: list[Fusion]) -> None:
    """Note, for masks that are not fused, that their convolution computes every column."""
    layers = {fusion.node: fusion for fusion in fusions if fusion.kind == "conv2d"}
    fused = {fusion.mask_node for fusion in fusions if fusion.packed}
    for node in traced.graph.nodes:
        if node.target is MASK_MARKER and node not in fused:
            source = node.args[0]
            while source not in layers and source.args and isinstance(source.args[0], fx.Node):
                source = source.args[0]
            if source in layers and layers[source].packed:
                layers[source].reasons.append(
                    "the column mask does not directly follow the convolution (another hook or operator uses "
                    "its unmasked output), so all columns are computed"
                )


def not_supported_reasons(node: fx.Node, constants: dict[fx.Node, Tensor]) -> list[str]:
    """Why `semisparse::conv2d` or `semisparse::linear` cannot run this layer; empty if it can."""
    call, reasons = arguments(node), []
    x = call["input"].meta["val"]
    convolution = node.target in _CONV
    if convolution and x.dim() != 4:
        reasons.append(f"the input has {x.dim()} dimensions; the operator takes (N, C, H, W)")
    if x.dtype != torch.float32:
        reasons.append(f"the input is {x.dtype}; the operator computes in float32")
    for role in ("weight", "bias"):
        if call[role] is not None and call[role] not in constants:
            reasons.append(f"the {role} is computed from the input; the operator takes constant ones")
        elif call[role] is not None and constants[call[role]].dtype != torch.float32:
            reasons.append(f"the {role} is {constants[call[role]].dtype}; the operator computes in float32")
    if convolution and isinstance(call["padding"], str) and _same_padding(call) is None:
        reasons.append(f"padding={call['padding']!r} pads both sides unequally here; use an odd kernel size")
    return reasons


class _Planner:
    def __init__(self, traced: Traced):
        self.constants = traced.constants
        self.order = {node: index for index, node in enumerate(traced.graph.nodes)}
        self.barriers = sorted(self.order[node] for node in traced.graph.nodes if is_mutating(node))
        self.taken: set[fx.Node] = set()

    def start(self, node: fx.Node) -> Fusion | None:
        if node.target is aten.linear.default:
            fusion = Fusion(node, "linear", node, reasons=not_supported_reasons(node, self.constants))
            fusion.packed = not fusion.reasons
            return fusion
        if node.target in _OTHER_CONV:
            kind = _OTHER_CONV[node.target]
            return Fusion(
                node, kind, node, reasons=[f"{kind} is not a convolution that semisparse::conv2d computes"]
            )
        if node.target not in _CONV:
            return None
        fusion = Fusion(node, "conv2d", node, reasons=not_supported_reasons(node, self.constants))
        fusion.packed = not fusion.reasons
        marker = next((user for user in node.users if user.target is MASK_MARKER), None)
        if marker is not None and len(node.users) == 1:
            mask = self.constants[marker.args[1]]
            fusion.mask_node, fusion.mask = marker, None if bool(mask.all()) else mask
        return fusion

    def extend(self, fusion: Fusion) -> None:
        """Follow the chain from a supported convolution as far as it can be fused."""
        call = arguments(fusion.node)
        fusion.stride, fusion.dilation = pair(call["stride"]), pair(call["dilation"])
        padding = call["padding"]
        fusion.padding = _same_padding(call) if isinstance(padding, str) else pair(padding)

        if fusion.mask_node is not None:
            self._take(fusion, fusion.mask_node)
        user = self._next(fusion)
        if user is not None and user.target is aten.batch_norm.default and user.args[0] is fusion.last:
            reason = self._batch_norm_reason(user)
            if reason is None:
                fusion.batch_norm = user
                self._take(fusion, user)
                user = self._next(fusion)
            else:
                fusion.notes.append(f"BatchNorm is not folded: {reason}")
        if user is not None and (residual := self._residual(fusion.last, user)) is not None:
            fusion.add, fusion.residual = user, residual
            self._take(fusion, user)
        self.extend_activation(fusion)

    def extend_activation(self, fusion: Fusion) -> None:
        """Fuse the activation that follows, if it is one of the operators'."""
        user = self._next(fusion)
        if user is not None and (activation := _activation(user, fusion.last)) is not None:
            fusion.activation = activation
            self._take(fusion, user)
        elif user is not None and user.target in _UNFUSED:
            fusion.notes.append(
                f"the activation {user.target} is not one of the operator's, and stays separate"
            )

    def _take(self, fusion: Fusion, node: fx.Node) -> None:
        self.taken.add(node)
        fusion.last = node

    def _next(self, fusion: Fusion) -> fx.Node | None:
        """The only user of the chain's end, if the chain may grow."""
        users = list(fusion.last.users)
        if len(users) != 1:
            kinds = sorted({str(user.target) for user in users if user.op == "call_function"})
            if any(
                user.target is aten.batch_norm.default or _activation(user, fusion.last) for user in users
            ):
                fusion.notes.append(
                    f"nothing more is fused: the result has {len(users)} users, {', '.join(kinds)}"
                )
            return None
        (user,) = users
        if user.op != "call_function" or user in self.taken or is_mutating(user):
            return None
        # The chain's inputs are read where it ends: no operator in between may change them.
        if any(self.order[fusion.node] < barrier < self.order[user] for barrier in self.barriers):
            fusion.notes.append("nothing more is fused, as an operator in between works in place")
            return None
        return user

    def _batch_norm_reason(self, node: fx.Node) -> str | None:
        call = arguments(node)
        if call["training"] or call["running_mean"] is None or call["running_var"] is None:
            return "it has no running statistics and normalises by those of the batch"
        for role in ("weight", "bias", "running_mean", "running_var"):
            if call[role] is not None and call[role] not in self.constants:
                return f"its {role} is computed from the input"
        return None

    def _residual(self, value: fx.Node, user: fx.Node) -> fx.Node | None:
        if user.target is not aten.add.Tensor:
            return None
        call = arguments(user)
        operands = [call["self"], call["other"]]
        if (
            call["alpha"] != 1
            or not all(isinstance(n, fx.Node) for n in operands)
            or operands[0] is operands[1]
        ):
            return None
        other = operands[1] if operands[0] is value else operands[0]
        ours, theirs = value.meta["val"], other.meta["val"]
        if not isinstance(theirs, Tensor) or theirs.dtype != ours.dtype or not _same_shape(ours, theirs):
            return None  # broadcasting or promoting additions stay as they are
        return other


_UNFUSED = {
    aten.gelu.default,
    aten.elu.default,
    aten.mish.default,
    aten.tanh.default,
    aten.hardsigmoid.default,
    aten.prelu.default,
    aten.selu.default,
    aten.celu.default,
    aten.softplus.default,
    aten.leaky_relu.default,
    aten.hardtanh.default,
}
_ACTIVATIONS = {
    aten.relu.default: "relu",
    aten.relu6.default: "relu6",
    aten.silu.default: "silu",
    aten.hardswish.default: "hardswish",
    aten.sigmoid.default: "sigmoid",
}
_LEAKY_RELU_SLOPE = 0.01  # the only one that the operator knows


def _activation(node: fx.Node, value: fx.Node) -> str | None:
    """The operator's name of the activation that `node` applies to `value`, or None."""
    if node.op != "call_function" or not node.args or node.args[0] is not value:
        return None
    if node.target in _ACTIVATIONS:
        return _ACTIVATIONS[node.target]
    if node.target is aten.leaky_relu.default:
        return "leaky_relu" if arguments(node)["negative_slope"] == _LEAKY_RELU_SLOPE else None
    if node.target is aten.hardtanh.default:
        call = arguments(node)
        return "relu6" if (call["min_val"], call["max_val"]) == (0, 6) else None
    if node.target is aten.clamp.default:
        call = arguments(node)
        return {(0, None): "relu", (0, 6): "relu6"}.get((call["min"], call["max"]))
    if node.target is aten.clamp_min.default:
        return "relu" if arguments(node)["min"] == 0 else None
    return None


def pair(value: list[int]) -> list[int]:
    """(vertical, horizontal) of an argument that may give one number for both; [] stays []."""
    return list(value) * 2 if len(value) == 1 else list(value)


def _same_padding(call: dict) -> list[int] | None:
    """padding="same" or "valid" in numbers; None if the two sides differ, which the operator cannot do."""
    kernel = call["weight"].meta["val"].shape[2:]
    if call["padding"] == "valid":
        return [0, 0]
    total = [d * (int(k) - 1) for d, k in zip(pair(call["dilation"]), kernel, strict=True)]
    return None if any(t % 2 for t in total) else [t // 2 for t in total]


def _same_shape(a: Tensor, b: Tensor) -> bool:
    # As text: comparing symbolic sizes would *assume* that they are equal, and remember that.
    return [str(size) for size in a.shape] == [str(size) for size in b.shape]


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, batch_norm: dict[str, Tensor | float | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Fold an inference BatchNorm into the convolution before it.

    Args:
        weight: (OC, IC/groups, kh, kw); bias: (OC,) or None.
        batch_norm: weight, bias, running_mean, running_var: (OC,) or None (the first two); eps.

    Returns:
        Folded weight, folded bias, and the BatchNorm's value at 0, (OC,): what a masked pixel holds after
        it, as the mask comes before (``beta - mean * gamma / sigma``).
    """
    # In double precision, rounded once: the folded network then differs from the original by float32
    # rounding only.
    mean, variance = (batch_norm[key].double() for key in ("running_mean", "running_var"))
    scale = (variance + batch_norm["eps"]).rsqrt()
    if batch_norm["weight"] is not None:
        scale = scale * batch_norm["weight"].double()
    shift = -mean * scale
    if batch_norm["bias"] is not None:
        shift = shift + batch_norm["bias"].double()
    folded_bias = shift if bias is None else shift + bias.double() * scale
    folded_weight = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    return folded_weight.to(weight.dtype), folded_bias.to(weight.dtype), shift.to(weight.dtype)
