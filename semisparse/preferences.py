"""The algorithms that a converted model's layers prefer: how a tuning takes effect."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from semisparse import algorithms
from semisparse.checksum import crc32
from semisparse.converted import ConvertedModel
from semisparse.stepwise import PACKED_CONVOLUTION
from semisparse.tuning_file import LayerTuning, Tuning

__all__ = ["apply", "checksums", "packed_weights", "prefer"]


def apply(model: ConvertedModel, tuning: Tuning) -> int:
    """Let the model's layers run what the tuning says; returns how many do. Layers it does not know stay as
    they are. Preferences hold for all weights of equal content in this process."""
    return prefer(packed_weights(model), tuning.layers)


def checksums(model: ConvertedModel) -> dict[str, int]:
    """Checksum of every packed weight, by the buffer's name."""
    names = {node.args[1].name for node in model.graph.nodes if node.op == PACKED_CONVOLUTION}
    return {name: crc32(model.get_buffer(name)) for name in names}


def packed_weights(model: ConvertedModel) -> dict[int, Tensor]:
    """Packed weights by checksum."""
    return {checksum: model.get_buffer(name) for name, checksum in checksums(model).items()}


def prefer(weights: dict[int, Tensor], layers: Sequence[LayerTuning]) -> int:
    """Let those of the layers whose weights are given (by checksum) run their algorithm; returns how many."""
    found = [layer for layer in layers if layer.checksum in weights]
    for layer in found:
        algorithms.prefer(weights[layer.checksum], layer.input_size, layer.algorithm)
    return len(found)
