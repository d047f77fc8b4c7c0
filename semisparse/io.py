"""Saving and loading converted models: one safetensors file, no pickle.

The file holds the constant tensors. Its metadata has one entry, ``graph``: a line with the CRC-32 of the
rest as eight hexadecimal digits, then the graph as JSON (`semisparse.graph`), which declares dtype, shape
and CRC-32 of every tensor. (One entry, as safetensors writes several in random order: saving a model twice
gives equal files.)

Checksums find damage; they do not protect from malice. What does is that a graph can only name operators of
a fixed vocabulary, that every field is validated, and that the operators check packed weights and masks
themselves.
"""

from __future__ import annotations

import os
import zlib

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

import semisparse
from semisparse._files import replace_atomically
from semisparse.converted import ConvertedModel
from semisparse.graph import Graph, TensorSpec

__all__ = ["load", "save"]


def save(model: ConvertedModel, path: str | os.PathLike) -> None:
    """Write a converted model to `path`, atomically: a crash leaves the old file or the new one.

    Raises:
        ValueError: `model` is no converted model, or calls an operator that a file cannot hold.
        OSError: the file cannot be written.
    """
    if not isinstance(model, ConvertedModel):
        raise ValueError(
            f"only converted models can be saved, and this is a {type(model).__name__}; "
            "use semisparse.convert(model, example_input) first"
        )
    tensors = {name: model.get_buffer(name).cpu().contiguous() for name in model.graph.tensors}
    specs = {
        name: TensorSpec(spec.dtype, spec.shape, _crc32(tensors[name]))
        for name, spec in model.graph.tensors.items()
    }
    graph = Graph(model.graph.inputs, specs, model.graph.nodes, model.graph.output, model.graph.layers)
    text = graph.to_json(producer=f"semisparse {semisparse.__version__}")
    content = serialize(tensors, {"graph": f"{zlib.crc32(text.encode()):08x}\n{text}"})
    with replace_atomically(path) as file:
        file.write(content)


def load(path: str | os.PathLike) -> ConvertedModel:
    """Read a converted model. The class that it was converted from is not needed.

    Raises:
        ValueError: the file is damaged, foreign, or of a newer format; nothing in it is executed.
        OSError: the file cannot be read.
    """
    path = os.fspath(path)
    with open(path, "rb"):  # a missing or unreadable file is an OSError with the usual text
        pass
    try:
        with safe_open(path, framework="pt") as file:
            graph = _graph(file.metadata() or {})
            # Copied out of the mapped file: a file that shrinks later must not take the process down.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        _check_contents(graph, tensors)
        return ConvertedModel(graph, tensors)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is not a usable semisparse model: {error}") from error


def _graph(metadata: dict[str, str]) -> Graph:
    if "graph" not in metadata:
        raise ValueError(
            f"its metadata has no 'graph' (only {sorted(metadata)}); weights alone cannot be run. "
            "Convert the model and write it with semisparse.save"
        )
    checksum, _, text = metadata["graph"].partition("\n")
    if checksum != f"{zlib.crc32(text.encode()):08x}":
        raise ValueError("the graph does not match its checksum: the file is damaged, write or copy it again")
    return Graph.from_json(text)


def _check_contents(graph: Graph, tensors: dict[str, Tensor]) -> None:
    for name, spec in graph.tensors.items():
        if name in tensors and spec.crc32 is not None and _crc32(tensors[name]) != spec.crc32:
            raise ValueError(
                f"tensor {name!r} does not match its checksum: the file is damaged, copy it again"
            )


def _crc32(tensor: Tensor) -> int:
    # As bytes: numpy has no bfloat16. Both file format and supported machines are little-endian.
    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
