"""`SizedModel`: one network converted for several image sizes, its weights held and stored once.

Column masks belong to an image size, and so does a converted network that has them. Detectors run at several:
each size has a graph of its own here, and the packed weights, which do not depend on the size, are shared.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semisparse.converted import ConvertedModel
from semisparse.graph import Graph, TensorRef, TensorSpec, transform
from semisparse.layers import LayerRecord

__all__ = ["SizedModel"]


class SizedModel(nn.Module):
    """Runs the converted network that was made for the size of its input.

    Args:
        models: what `semisparse.convert` returned for examples of different sizes. Each has one input,
            (N, C, H, W), with fixed height and width. The first is the main one, whose layers are reported.
        info: a JSON object that travels with the file, such as the class names of a detector.

    Raises:
        ValueError: no model, two models of one size, inputs other than one image batch of fixed size, or an
            `info` that is no JSON object.

    Attributes:
        info: as given.
        sizes: (height, width) of the models, the main one first.
    """

    def __init__(self, models: Sequence[ConvertedModel], info: Mapping[str, Any] | None = None):
        super().__init__()
        if not models:
            raise ValueError("there is no model to combine; give one converted model per image size")
        self.info = _checked_info({} if info is None else dict(info))
        sizes = [_size(model) for model in models]
        for size in sizes:
            if sizes.count(size) > 1:
                raise ValueError(f"two models are for the size {size[0]} x {size[1]}; give one per size")
        self.sizes = tuple(sizes)
        self.models = nn.ModuleList(_share(models, sizes))
        self._index = {size: index for index, size in enumerate(sizes)}
        self.eval()

    @property
    def layers(self) -> tuple[LayerRecord, ...]:
        """Of the main model."""
        return self.models[0].layers

    def column_masks(self) -> dict[str, Tensor]:
        """Of the main model; see `ConvertedModel.column_masks`."""
        return self.models[0].column_masks()

    def at(self, size: tuple[int, int]) -> ConvertedModel:
        """The model for images of `size`, (height, width).

        Raises:
            ValueError: there is none; names those that there are.
        """
        index = self._index.get(tuple(size))
        if index is None:
            raise ValueError(
                f"there is no network for images of {size[0]} x {size[1]} (height x width); this model holds "
                f"{', '.join(f'{h} x {w}' for h, w in self.sizes)}. Resize or pad the picture to one of "
                "these, or convert for this size too"
            )
        return self.models[index]

    def forward(self, x: Tensor) -> Any:
        if not isinstance(x, Tensor) or x.dim() != 4:
            what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"the input must be a tensor of shape (N, C, H, W), but it is {what}")
        return self.at((x.shape[2], x.shape[3]))(x)


def _size(model: ConvertedModel) -> tuple[int, int]:
    if not isinstance(model, ConvertedModel):
        raise ValueError(
            f"this is a {type(model).__name__}, expected converted models; use semisparse.convert first"
        )
    shapes = [i.shape for i in model.graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][2:]:
        raise ValueError(
            f"the model's inputs have the shapes {shapes} (None is free), expected one (N, C, H, W) with "
            "fixed height and width; convert with free_size=False"
        )
    return shapes[0][2], shapes[0][3]


def _share(models: Sequence[ConvertedModel], sizes: Sequence[tuple[int, int]]) -> list[ConvertedModel]:
    """Models whose tensors of equal content are one tensor of one name, and whose other names differ."""
    known: dict[Any, tuple[str, Tensor]] = {}
    taken: set[str] = set()
    result = []
    for model, (height, width) in zip(models, sizes, strict=True):
        names: dict[str, str] = {}
        tensors: dict[str, Tensor] = {}
        for name in model.graph.tensors:
            tensor = model.get_buffer(name)
            key = (tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8))
            key = (key[0], key[1], key[2].numpy().tobytes())
            if key not in known:
                base = fresh = name if name not in taken else f"{name}_{height}x{width}"
                count = 1
                while fresh in taken:
                    count += 1
                    fresh = f"{base}_{count}"
                taken.add(fresh)
                known[key] = (fresh, tensor)
            names[name], shared = known[key]
            tensors[names[name]] = shared
        result.append(ConvertedModel(_renamed(model.graph, names), tensors))
    return result


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    if all(old == new for old, new in names.items()):
        return graph

    def leaf(value: Any) -> Any:
        return TensorRef(names[value.name]) if isinstance(value, TensorRef) else value

    nodes = tuple(
        dataclasses.replace(node, args=transform(node.args, leaf), kwargs=transform(node.kwargs, leaf))
        for node in graph.nodes
    )
    tensors = {names[name]: TensorSpec(spec.dtype, spec.shape) for name, spec in graph.tensors.items()}
    return dataclasses.replace(graph, tensors=tensors, nodes=nodes, output=transform(graph.output, leaf))


def _checked_info(info: dict) -> dict:
    try:
        plain = json.loads(json.dumps(info, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"info cannot be stored as JSON: {error}") from None
    if plain != info:
        raise ValueError("info must be JSON as it is: text keys, lists instead of tuples, plain numbers")
    return plain
