"""The file of a converted network, without torch: its metadata as graphs, and the checks of its contents.

Both readers use it: `semisparse.io` with torch, `semisparse.runtime` with numpy. The format is described in
`semisparse.io`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from semisparse.graph import Graph

__all__ = ["Contents", "check_tensors", "parse"]

SIZED_FORMAT, SIZED_VERSION = "semisparse-graphs", 1


@dataclass(frozen=True)
class Contents:
    """What a file describes: one graph, or one for each image size (`sized`) with the user's `info`."""

    graphs: tuple[Graph, ...]
    sized: bool = False
    info: dict[str, Any] = field(default_factory=dict)


def parse(metadata: dict[str, str]) -> Contents:
    """The validated description of the network.

    Args:
        metadata: that of the safetensors file.

    Raises:
        ValueError: damaged, foreign, or of a newer format; says what to do.
    """
    entry = next((name for name in ("graph", "graphs") if name in metadata), None)
    if entry is None:
        raise ValueError(
            f"its metadata has no 'graph' (only {sorted(metadata)}); weights alone cannot be run. "
            "Convert the model and write it with semisparse.save"
        )
    checksum, _, text = metadata[entry].partition("\n")
    if checksum != f"{zlib.crc32(text.encode()):08x}":
        raise ValueError("the graph does not match its checksum: the file is damaged, write or copy it again")
    return Contents((Graph.from_json(text),)) if entry == "graph" else _sized(text)


def check_tensors(contents: Contents, names: Collection[str], crc32: Callable[[str], int]) -> None:
    """Compare the tensors of a file with the checksums that its graphs declare.

    Args:
        names: of the tensors in the file.
        crc32: from a name to the CRC-32 of the tensor's bytes, little-endian and contiguous.

    Raises:
        ValueError: a tensor does not match its checksum, or no graph declares it.
    """
    for graph in contents.graphs:
        for name, spec in graph.tensors.items():
            if name in names and spec.crc32 is not None and crc32(name) != spec.crc32:
                raise ValueError(
                    f"tensor {name!r} does not match its checksum: the file is damaged, copy it again"
                )
    if extra := set(names) - {name for graph in contents.graphs for name in graph.tensors}:
        declared = "no graph declares" if contents.sized else "the graph does not declare"
        raise ValueError(f"there is a tensor {min(extra)!r} that {declared}; write the file again")


def _sized(text: str) -> Contents:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its list of graphs is not valid JSON ({error}); write the file again") from None
    if not isinstance(document, dict) or document.get("format") != SIZED_FORMAT:
        raise ValueError(f"its list of graphs is not of format {SIZED_FORMAT!r}; write the file again")
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= SIZED_VERSION:
        raise ValueError(
            f"its list of graphs has version {version!r:.20}, but this semisparse reads "
            f"up to {SIZED_VERSION}; install a newer semisparse, or save the model again with this one"
        )
    graphs, info = document.get("graphs"), document.get("info")
    if not isinstance(graphs, list) or not 1 <= len(graphs) <= 1000 or not isinstance(info, dict):
        raise ValueError("its list of graphs, or their info, is missing or too long; write the file again")
    return Contents(tuple(map(Graph.from_document, graphs)), True, info)
