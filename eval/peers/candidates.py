"""What is raced: a model on an engine, handed to its process as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import semisparse as ss
from semisparse.converted import ConvertedModel
from semisparse.eval.models import load_program
from semisparse.tuning_file import tuning_path

MODEL, CONVERTED, EXPECTED = "model.pt2", "model.safetensors", "expected.safetensors"
TUNING = tuning_path(CONVERTED).name  # where semisparse.load looks for it


@dataclass(frozen=True)
class Candidate:
    """One entry of a race.

    Attributes:
        label: how reports call it; unique in a race.
        engine: a name of `ENGINES`.
        model: an eval-mode module with one input (N, C, H, W), or a `ConvertedModel` (engines `OWN`).
        tuning: file of a `ConvertedModel`'s tuning, see `semisparse.tuning`.
    """

    label: str
    engine: str
    model: nn.Module
    tuning: Path | None = None


def write(model: nn.Module, example: Tensor, directory: Path) -> None:
    """Store a model and what it computes for `example`, for `read`.

    Raises:
        ValueError: torch.export cannot capture the model.
    """
    with torch.inference_mode():
        expected = first_array(model(example))
    save_file({"output": torch.from_numpy(np.ascontiguousarray(expected))}, directory / EXPECTED)
    if isinstance(model, ConvertedModel):
        ss.save(model, directory / CONVERTED)
        return
    try:
        torch.export.save(torch.export.export(model.eval(), (example,)), directory / MODEL)
    except Exception as error:  # torch.export raises whatever the model's code does
        raise ValueError(f"torch.export cannot capture the model: {error}") from error


def read(directory: Path) -> nn.Module:
    """The model that `write` stored."""
    if (directory / CONVERTED).exists():
        return ss.load(directory / CONVERTED)
    return load_program(directory / MODEL)


def first_array(output: object) -> np.ndarray:
    """The first tensor or array in what a model or an engine returned, whatever it is nested in."""
    if isinstance(output, Tensor):
        return output.detach().numpy()
    if isinstance(output, np.ndarray):
        return output
    values = (
        output.values()
        if hasattr(output, "values")
        else output
        if isinstance(output, (list, tuple))
        else None
    )
    if values is not None:
        return first_array(next(iter(values)))
    return np.array(output)  # ncnn.Mat and other holders of a buffer


def difference(output: np.ndarray, expected: np.ndarray) -> float:
    """Largest |output - expected| over the largest |expected|; engines may drop or add axes of size 1."""
    if output.size != expected.size:
        raise RuntimeError(f"its output has shape {output.shape}, expected {expected.shape}")
    error = np.abs(output.reshape(-1).astype(np.float64) - expected.reshape(-1)).max(initial=0.0)
    return float(error / max(np.abs(expected).max(initial=0.0), 1e-30))
