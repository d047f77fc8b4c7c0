"""How sparse a model is, layer by layer: `statistics`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from semisparse import masking
from semisparse._table import text_table
from semisparse.converted import ConvertedModel, pack_weight
from semisparse.graph import TensorRef
from semisparse.recipe import AUTO, LayerRecipe, Recipe
from semisparse.sized import SizedModel
from semisparse.structure import Structure, find_structure

__all__ = ["LayerStatistics", "Statistics", "statistics"]


@dataclass(frozen=True)
class LayerStatistics:
    """One layer. Sparsities are fractions removed, MACs multiply-accumulates per image, sizes in bytes.

    Attributes:
        name: qualified name of the module.
        kind: conv2d, linear, ...
        weight_shape: (out channels, in channels / groups, kernel height, kernel width), or (out, in).
        groups: channel groups of a convolution.
        output_size: (OH, OW); None if unknown, () for linear layers.
        scheme: the sparsity of the weights: what their zeros show (see `Structure`), or what the recipe says.
        structure: what the zeros show in detail.
        weight_sparsity: fraction of the weights that are zero.
        column_sparsity: fraction of the output pixels that the column mask removes.
        macs_dense: of the layer without sparsity; None if the output size is unknown.
        macs_kept: what sparsity leaves of them.
        bytes_dense: the weights as an array.
        bytes_packed: the weights in the operator's format; None if it cannot run the layer.
        bytes_csr: the weights in compressed sparse rows with int32 indices.
        reasons: why sparsity of the layer is not used, or not there although the recipe asks for it.
    """

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    groups: int
    output_size: tuple[int, ...] | None
    scheme: str
    structure: Structure
    weight_sparsity: float
    column_sparsity: float
    macs_dense: int | None
    macs_kept: int | None
    bytes_dense: int
    bytes_packed: int | None
    bytes_csr: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Statistics:
    """All layers of a model; `str()` is a table. Totals of MACs are None if any is unknown."""

    layers: tuple[LayerStatistics, ...]
    macs_dense: int | None = field(init=False)
    macs_kept: int | None = field(init=False)
    bytes_dense: int = field(init=False)
    bytes_packed: int = field(init=False)
    bytes_csr: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("bytes_dense", "bytes_csr"):
            object.__setattr__(self, name, sum(getattr(layer, name) for layer in self.layers))
        # A partial sum of MACs would be taken for the whole.
        for name in ("macs_dense", "macs_kept"):
            counts = [getattr(layer, name) for layer in self.layers]
            object.__setattr__(self, name, None if None in counts else sum(counts))
        # Layers that cannot be packed are stored as arrays.
        packed = sum(x.bytes_dense if x.bytes_packed is None else x.bytes_packed for x in self.layers)
        object.__setattr__(self, "bytes_packed", packed)

    def __str__(self) -> str:
        rows = [_HEADER, *map(_row, self.layers)]
        left = _HEADER.index("weights")  # names to the left, numbers to the right
        removed = f"{1 - self.macs_kept / self.macs_dense:.1%} fewer" if self.macs_dense else "-"
        totals = [
            _count(self.macs_dense),
            _count(self.macs_kept),
            *map(_size, (self.bytes_dense, self.bytes_packed)),
        ]
        rows.append(["total", *[""] * left, removed, *totals, _size(self.bytes_csr), ""])
        header, rule, *lines = text_table(rows, left, notes=True).splitlines()
        return "\n".join([header, rule, *lines[:-1], rule, lines[-1]])


def statistics(
    model: nn.Module,
    example_input: Tensor | Sequence[Tensor] | None = None,
    recipe: Recipe | None = None,
) -> Statistics:
    """Sparsity, multiply-accumulates and sizes of every convolution and linear layer.

    Args:
        model: a training model (masked or not), or a converted one (`SizedModel`: for its main size).
        example_input: tensor or tensors that forward takes. With it, output sizes are measured by running the
            model once in eval mode. Without it, they are known for layers with a column mask and for
            converted models.
        recipe: what a training model is trained with. Layers then have the scheme that it says, and a reason
            where it asks for sparsity that is not there.

    Returns:
        `Statistics`; print it for a table.

    Raises:
        ValueError: the recipe does not fit the model, or the model is converted: recipes name its training
            model's layers.
    """
    if isinstance(model, SizedModel):  # the layers of all sizes share their weights
        model = model.models[0]
    if isinstance(model, ConvertedModel):
        if recipe is not None:
            raise ValueError(
                "a recipe belongs to the training model; call statistics(model, x, recipe) on it"
            )
        return Statistics(tuple(_converted_layers(model)))
    sizes = {} if example_input is None else output_sizes(model, example_input)
    asked = {} if recipe is None else recipe.resolve(model)
    return Statistics(
        tuple(
            _as_asked(_training_layer(name, module, sizes.get(module)), asked.get(name))
            for name, module in model.named_modules()
            if isinstance(module, _KINDS)
        )
    )


_KINDS = (nn.Linear, nn.modules.conv._ConvNd)


def output_sizes(model: nn.Module, example_input: Tensor | Sequence[Tensor]) -> dict[nn.Module, list[tuple]]:
    """(output size, positions) of every call of every convolution and linear layer; see `LayerRecord`.

    Runs the model once, in eval mode and without gradients; modes are restored.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = [example_input] if isinstance(example_input, Tensor) else list(example_input)
    sizes: dict[nn.Module, list[tuple]] = {}

    def record(module: nn.Module, args: tuple, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            size, positions = (), math.prod(output.shape[1:-1])
        else:
            dims = len(module.kernel_size)
            size = tuple(output.shape[-dims:])
            positions = math.prod(args[0].shape[-dims:] if module.transposed else size)
        sizes.setdefault(module, []).append((size, positions))

    modes = [(module, module.training) for module in model.modules()]
    hooks = [module.register_forward_hook(record) for module in model.modules() if isinstance(module, _KINDS)]
    try:
        with torch.no_grad():
            model.eval()(*(x.to(device) for x in inputs))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return sizes


def _training_layer(name: str, module: nn.Module, sizes: list[tuple] | None) -> LayerStatistics:
    mask = masking.column_mask(module)
    if sizes is None:
        known = () if isinstance(module, nn.Linear) else None if mask is None else tuple(mask.shape)
        sizes = None if known is None else [(known, math.prod(known))]
    weight = module.weight.detach()
    packed = None
    if isinstance(module, (nn.Conv2d, nn.Linear)) and weight.dtype == torch.float32:
        packed = pack_weight(weight, getattr(module, "groups", 1)).numel()
    kind = "linear" if isinstance(module, nn.Linear) else _snake(type(module).__name__)
    reasons = ()
    if packed is None and not bool(weight.all()):
        reasons = (f"no operator for {kind} with {weight.dtype} weights skips zeros: it will run densely",)
    return _layer(name, kind, weight, getattr(module, "groups", 1), sizes, mask, packed, reasons)


def _as_asked(layer: LayerStatistics, asked: LayerRecipe | None) -> LayerStatistics:
    """The layer under the name of the recipe's scheme, with a reason where the recipe is not met."""
    if asked is None:
        return layer
    reasons = list(layer.reasons)
    if asked.sparse_weights and layer.weight_sparsity == 0:
        reasons.append("the recipe removes weights here, but none is zero: training has not come that far")
    may_keep_all = asked.columns.granularity == AUTO  # where removing some is no faster
    if asked.columns.ratio > 0 and layer.column_sparsity == 0 and not may_keep_all:
        reasons.append("the recipe removes columns here, but all are there: training has not come that far")
    scheme = layer.scheme if asked.scheme == "dense" else asked.scheme
    return dataclasses.replace(layer, scheme=scheme, reasons=tuple(reasons))


def _converted_layers(model: ConvertedModel):
    nodes = {node.name: node for node in model.graph.nodes}
    for record in model.layers:
        node = nodes[record.node]
        stored, packed = node.args[1], None
        if not isinstance(stored, TensorRef):
            continue  # a weight that is computed from the input has no sparsity of its own
        weight = model.get_buffer(stored.name)
        if node.op in ("semisparse.conv2d.packed", "semisparse.linear.default"):
            packed, weight = weight.numel(), torch.ops.semisparse.unpack_weight(weight)
            weight = weight.reshape(record.weight_shape)
        mask = node.kwargs.get("mask")
        mask = None if mask is None else model.get_buffer(mask.name)
        sizes = [(record.output_size, record.positions)]
        yield _layer(record.name, record.kind, weight, record.groups, sizes, mask, packed, record.reasons)


def _layer(
    name: str,
    kind: str,
    weight: Tensor,
    groups: int,
    sizes: list[tuple] | None,
    mask: Tensor | None,
    packed: int | None,
    reasons: tuple[str, ...] = (),
) -> LayerStatistics:
    columns = 0.0 if mask is None else 1 - mask.sum().item() / mask.numel()
    structure = find_structure(weight, groups)
    nonzero = int(weight.count_nonzero())
    positions = None if sizes is None else sum(count for _, count in sizes)
    kept = positions if mask is None or sizes is None else len(sizes) * int(mask.sum())
    return LayerStatistics(
        name=name,
        kind=kind,
        weight_shape=tuple(weight.shape),
        groups=groups,
        output_size=None if sizes is None else sizes[-1][0],
        scheme=structure.scheme,
        structure=structure,
        weight_sparsity=1 - nonzero / max(1, weight.numel()),
        column_sparsity=columns,
        macs_dense=None if positions is None else weight.numel() * positions,
        macs_kept=None if kept is None else nonzero * kept,
        bytes_dense=weight.numel() * weight.element_size(),
        bytes_packed=packed,
        bytes_csr=nonzero * (weight.element_size() + 4) + 4 * (weight.shape[0] + 1),
        reasons=reasons,
    )


def _snake(name: str) -> str:
    """'ConvTranspose2d' -> 'conv_transpose2d'."""
    return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


_HEADER = (
    "layer|kind|weight|output|scheme|structure|weights|columns|MACs|kept|bytes|packed|CSR|not used".split("|")
)


def _row(layer: LayerStatistics) -> list[str]:
    shape = "x".join(map(str, layer.weight_shape)) + (f" /{layer.groups}" if layer.groups > 1 else "")
    size = "?" if layer.output_size is None else "x".join(map(str, layer.output_size)) or "-"
    sparsities = [f"{layer.weight_sparsity:.1%}", f"{layer.column_sparsity:.1%}"]
    counts = [_count(layer.macs_dense), _count(layer.macs_kept)]
    sizes = [_size(n) for n in (layer.bytes_dense, layer.bytes_packed, layer.bytes_csr)]
    names = [layer.name, layer.kind, shape, size, layer.scheme, str(layer.structure)]
    return [*names, *sparsities, *counts, *sizes, "; ".join(layer.reasons)]


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number / 1e6:.1f}M"


def _size(number: int | None) -> str:
    return "-" if number is None else f"{number / 1024:.1f}K"
