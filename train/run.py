"""A finished (or interrupted) training run, read back for evaluation and conversion."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semisparse.recipe import Recipe

from .checkpoint import load_checkpoint, load_weights
from .models import make_classifier


@dataclass
class Run:
    """What a training run left behind.

    Attributes:
        name: the run directory's name.
        path: the checkpoint file.
        model: the trained network in eval mode, column masks attached; the averaged weights if it kept an
            average.
        classes: names of the classes, in the order of the outputs.
        options: the options that the run was started with.
        history: one dict per epoch, as in log.jsonl.
        epoch: epochs completed.
        recipe: the sparsity that it trains; None for a dense run.
    """

    name: str
    path: Path
    model: nn.Module
    classes: list[str]
    options: dict[str, Any]
    history: list[dict] = field(default_factory=list, repr=False)
    epoch: int = 0
    recipe: Recipe | None = None

    def example(self) -> Tensor:
        """One picture of zeros (1, 3, size, size), float32, of the size that the run was trained at."""
        size = self.options["size"]
        return torch.zeros(1, 3, size, size)


def load_run(run: str | os.PathLike) -> Run:
    """Read a run directory, or its checkpoint.pt.

    Raises ValueError if there is no checkpoint that `semisparse train classify` wrote.
    """
    path = Path(run)
    if path.is_dir():
        path = path / "checkpoint.pt"
    state = load_checkpoint(path)
    missing = [key for key in ("args", "classes", "epoch") if key not in state]
    if missing:
        raise ValueError(
            f"{str(path)!r} lacks {', '.join(missing)}: it holds weights only; give a run directory of "
            "semisparse train classify"
        )
    options, classes = dict(state["args"]), list(state["classes"])
    model = make_classifier(options["model"], len(classes))
    weights = state["model_ema"]["module"] if state.get("model_ema") else state["model"]
    load_weights(model, weights, source=str(path))
    name = path.resolve().parent.name
    recipe = Recipe(state["recipe"]) if state.get("recipe") else None
    return Run(name, path, model.eval(), classes, options, state.get("history", []), state["epoch"], recipe)
