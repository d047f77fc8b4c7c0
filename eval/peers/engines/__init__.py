"""One small file per engine. Each has

- `PACKAGES`: the distributions it needs, as `pip install` takes them;
- `build(model, example, threads, directory) -> Call`: prepares an eval-mode module for one input
  (N, C, H, W), float32, and returns a callable without arguments that runs one forward pass and returns the
  output or outputs. What it has to write to disk goes into `directory`.

Engines compute in float32, with every optimisation that keeps float32 and as many threads as asked.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

Call = Callable[[], object]

# Engine -> its module here. The order is that of reports.
ENGINES = {
    "semisparse": "semisparse",
    "semisparse.runtime": "semisparse_runtime",
    "torch": "torch_eager",
    "torch.compile": "torch_compile",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "mnn": "mnn",
    "litert": "litert",
    "executorch": "executorch",
}


# Those that are this project: they run sparse networks as they are, and are no peers.
OWN = ("semisparse", "semisparse.runtime")


def engine(name: str) -> ModuleType:
    """The module of an engine, which imports the engine itself only when it builds.

    Raises:
        ValueError: an unknown name.
    """
    from importlib import import_module

    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}: choose among {', '.join(ENGINES)}")
    return import_module(f"{__name__}.{ENGINES[name]}")
