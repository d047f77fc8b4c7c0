"""A finished training run as a model again: for conversion and evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .checkpoint import load_checkpoint, load_weights
from .models import make_classifier


@dataclass
class Run:
    """A trained classifier, in eval mode, its column masks attached.

    Attributes:
        path: the checkpoint it was read from.
        model: the network; the averaged weights where the run kept them (`--model-ema`).
        classes: names, in the order of the outputs.
        options: the run's command-line options by name (`data`, `model`, `size`, ...).
        recipe: as plain values, None for a dense run.
    """

    path: Path
    model: nn.Module
    classes: list[str]
    options: dict
    recipe: dict | None

    @property
    def name(self) -> str:
        return self.path.parent.name or self.path.stem

    def example(self) -> torch.Tensor:
        """Random input (1, 3, size, size) of the training size."""
        size = self.options["size"]
        return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def load_run(path: str | os.PathLike) -> Run:
    """Read a run directory, or its checkpoint file.

    Raises:
        ValueError: there is no checkpoint, or it holds weights alone and so does not say of what model.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoint.pt"
    state = load_checkpoint(path)
    options, classes = state.get("args"), state.get("classes")
    if not options or not classes:
        raise ValueError(
            f"{str(path)!r} holds weights without the options of the run; "
            "give the directory or checkpoint.pt that `semisparse train classify` wrote"
        )
    model = make_classifier(options["model"], len(classes))
    average = state.get("model_ema")
    load_weights(model, average["module"] if average else state["model"], source=str(path))
    return Run(path, model.eval(), list(classes), dict(options), state.get("recipe"))
