"""What conversion did to each layer, and why not more."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class LayerRecord:
    """One convolution or linear layer of a converted model.

    Attributes:
        name: qualified name of the module in the converted model's source, or of the operator call.
        kind: conv1d, conv2d, conv3d, conv_transpose2d, ..., or linear.
        node: name of the graph node that computes the layer.
        weight_shape: (out channels, in channels / groups, kernel height, kernel width), or (out, in).
        groups: channel groups of a convolution.
        output_size: spatial size of the output for the example input, (OH, OW); () for linear layers.
        positions: how often each weight is used per image, for the example input: the output pixels of a
            convolution, the input pixels of a transposed one, 1 for a linear layer on vectors.
        weight_sparsity: fraction of the weights that are zero.
        column_sparsity: fraction of the output pixels that the column mask removes.
        packed: whether `semisparse::conv2d` or `semisparse::linear` runs it, which is what skips zero weights
            and masked columns.
        batch_norm: whether a BatchNorm is folded in.
        residual: whether a residual addition is fused.
        activation: the fused activation, or "none".
        reasons: why sparsity of the layer is not, or not wholly, used; why no operator of semisparse
            runs it. Empty where all is well.
        notes: why something next to the layer could not be folded or fused.
    """

    name: str
    kind: str
    node: str
    weight_shape: tuple[int, ...]
    groups: int = 1
    output_size: tuple[int, ...] = ()
    positions: int = 1
    weight_sparsity: float = 0.0
    column_sparsity: float = 0.0
    packed: bool = False
    batch_norm: bool = False
    residual: bool = False
    activation: str = "none"
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def wasted(self) -> bool:
        """Whether training removed something here that is computed all the same; `reasons` says why."""
        sparse = self.weight_sparsity > 0 or self.column_sparsity > 0
        return bool(self.reasons) and (sparse or self.packed)  # a packed layer has reasons only for its mask

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @staticmethod
    def from_json(record: Any) -> LayerRecord:
        """The inverse of `to_json`. Raises ValueError for anything that is no such object."""
        expected = {f.name: f.default for f in fields(LayerRecord)}
        if not isinstance(record, dict) or set(record) != set(expected):
            raise ValueError(f"a layer record must be an object with the keys {sorted(expected)}")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        for key, value in values.items():
            if not _TYPES[key](value):
                raise ValueError(f"field {key!r} of a layer record has an unexpected type or value")
        return LayerRecord(**values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _is_tuple_of(check) -> Any:
    return lambda value: isinstance(value, tuple) and all(map(check, value))


_TYPES = {
    "name": _is_text,
    "kind": _is_text,
    "node": _is_text,
    "weight_shape": _is_tuple_of(_is_count),
    "groups": _is_count,
    "output_size": _is_tuple_of(_is_count),
    "positions": _is_count,
    "weight_sparsity": _is_fraction,
    "column_sparsity": _is_fraction,
    "packed": _is_flag,
    "batch_norm": _is_flag,
    "residual": _is_flag,
    "activation": _is_text,
    "reasons": _is_tuple_of(_is_text),
    "notes": _is_tuple_of(_is_text),
}
