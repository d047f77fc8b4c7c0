"""Export to ONNX, for the engines that read it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

PACKAGES = ("onnx",)


def export(model: nn.Module, example: Tensor, directory: str) -> Path:
    """Write `model.onnx` into `directory` (once) and return its path. Inputs and outputs have fixed
    shapes."""
    import onnx  # noqa: F401  (torch.onnx needs it, and would complain less clearly)

    path = Path(directory) / "model.onnx"
    if not path.exists():
        with warnings.catch_warnings():
            # The TorchScript exporter is deprecated, but needs no further package and takes 1 s, not 10.
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (example,), path, dynamo=False, opset_version=17, input_names=["input"])
    return path
