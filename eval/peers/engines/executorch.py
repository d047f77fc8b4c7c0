"""ExecuTorch with its XNNPACK backend."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

PACKAGES = ("executorch",)


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    path = Path(directory) / "model.pte"
    exported = torch.export.export(model, (example,))
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(program.buffer)
    # Its thread pool has as many threads as the process has cores, and workers are pinned to `threads` cores.
    method = Runtime.get().load_program(path).load_method("forward")
    x = example.contiguous()
    return lambda: method.execute([x])
