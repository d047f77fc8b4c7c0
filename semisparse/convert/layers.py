"""What conversion did to each layer, and why not more."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass
class LayerRecord:
    """One convolution or linear layer of a converted model.

    Attributes:
        name: qualified name of the module in the model that was converted, or of the operator call if there
        is none. kind: conv1d, conv2d, conv3d, conv_transpose2d, ..., or linear. node: name of the graph
        node that computes the layer. weight_shape: (out channels, in channels / groups, kernel height,
        kernel width), or (out, in). groups: channel groups of a convolution. output_size: spatial size of
        the output for the example input, (OH, OW); () for linear layers. weight_sparsity: fraction of the
        weights that are zero. column_sparsity: fraction of the output pixels that the column mask removes.
        packed: whether `semisparse::conv2d` runs it, which is what skips zero weights and masked columns.
        batch_norm, residual: whether a BatchNorm is folded in, and a residual addition fused. activation:
        the fused activation, or "none". reasons: why a layer is not run by `semisparse::conv2d`. Empty
        where it is, and for linear layers. notes: why something next to the layer could not be folded or
        fused.
    """

    name: str
    kind: str
    node: str
    weight_shape: tuple[int, ...]
    groups: int = 1
    output_size: tuple[int, ...] = ()
    weight_sparsity: float = 0.0
    column_sparsity: float = 0.0
    packed: bool = False
    batch_norm: bool = False
    residual: bool = False
    activation: str = "none"
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict:
        """The record as a JSON object; `LayerRecord(**record)` is the inverse."""
        record = asdict(self)
        return record | {key: list(record[key]) for key in ("weight_shape", "output_size")}
