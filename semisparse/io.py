"""Saving and loading converted models: one safetensors file, no pickle.

The file holds the constant tensors. Its metadata has one entry, ``graph``: a line with the CRC-32 of the
rest as eight hexadecimal digits, then the graph as JSON (`semisparse.graph`), which declares dtype, shape
and CRC-32 of every tensor. (One entry, as safetensors writes several in random order: saving a model twice
gives equal files.)

A network for several image sizes (`SizedModel`) has the entry ``graphs`` instead, in the same form::

    {"format": "semisparse-graphs", "version": 1, "info": {...}, "graphs": [...]}

Its graphs share the tensors; `info` is the user's.

Checksums find damage; they do not protect from malice. What does is that a graph can only name operators of
a fixed vocabulary, that every field is validated, and that the operators check packed weights and masks
themselves.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

import semisparse
from semisparse._files import replace_atomically
from semisparse.checksum import crc32
from semisparse.container import SIZED_FORMAT, SIZED_VERSION, check_tensors, parse
from semisparse.converted import ConvertedModel
from semisparse.graph import Graph, TensorSpec
from semisparse.preferences import apply
from semisparse.sized import SizedModel
from semisparse.tuning_file import read as read_tuning

__all__ = ["load", "save"]


def save(model: ConvertedModel | SizedModel, path: str | os.PathLike) -> None:
    """Write a converted model to `path`, atomically: a crash leaves the old file or the new one.

    Raises:
        ValueError: `model` is no converted model, or calls an operator that a file cannot hold.
        OSError: the file cannot be written.
    """
    producer = f"semisparse {semisparse.__version__}"
    if isinstance(model, ConvertedModel):
        graph, tensors = _stored(model)
        entry, text = "graph", graph.to_json(producer)
    elif isinstance(model, SizedModel):
        tensors, documents = {}, []
        for one in model.models:
            graph, used = _stored(one)
            tensors |= used
            documents.append(json.loads(graph.to_json(producer)))
        document = {
            "format": SIZED_FORMAT,
            "version": SIZED_VERSION,
            "info": model.info,
            "graphs": documents,
        }
        entry, text = "graphs", json.dumps(document, allow_nan=False, separators=(",", ":"))
    else:
        raise ValueError(
            f"only converted models can be saved, and this is a {type(model).__name__}; "
            "use semisparse.convert(model, example_input) first"
        )
    content = serialize(tensors, {entry: f"{zlib.crc32(text.encode()):08x}\n{text}"})
    with replace_atomically(path) as file:
        file.write(content)


def load(path: str | os.PathLike, *, tuned: bool = True) -> ConvertedModel | SizedModel:
    """Read a converted model. The class that it was converted from is not needed.

    Args:
        tuned: let layers run the algorithms that `semisparse tune` found on this machine, where that was
            done:
            they are in `model.tuning.json` beside `model.safetensors`.

    Raises:
        ValueError: the file is damaged, foreign, or of a newer format; nothing in it is executed.
        OSError: the file cannot be read.
    """
    path = os.fspath(path)
    with open(path, "rb"):  # a missing or unreadable file is an OSError with the usual text
        pass
    try:
        with safe_open(path, framework="pt") as file:
            contents = parse(file.metadata() or {})
            # Copied out of the mapped file: a file that shrinks later must not take the process down.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        check_tensors(contents, tensors, lambda name: crc32(tensors[name]))
        models = [
            ConvertedModel(graph, {name: tensors[name] for name in graph.tensors if name in tensors})
            for graph in contents.graphs
        ]
        model = SizedModel(models, contents.info) if contents.sized else models[0]
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is not a usable semisparse model: {error}") from error
    if tuned and (found := read_tuning(path, torch.get_num_threads())) is not None:
        for one in models:
            apply(one, found)
    return model


def _stored(model: ConvertedModel) -> tuple[Graph, dict[str, Tensor]]:
    """The model's graph with the checksums of its tensors, and these."""
    tensors = {name: model.get_buffer(name).cpu().contiguous() for name in model.graph.tensors}
    specs = {
        name: TensorSpec(spec.dtype, spec.shape, crc32(tensors[name]))
        for name, spec in model.graph.tensors.items()
    }
    return dataclasses.replace(model.graph, tensors=specs), tensors
