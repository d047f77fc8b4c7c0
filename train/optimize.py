"""Optimiser, learning-rate schedule and weight average from the command line's names."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

OPTIMIZERS = ("sgd", "sgd_nesterov", "adam", "adamw", "rmsprop")
SCHEDULES = ("cosine", "linear", "step", "constant")


def make_optimizer(
    model: nn.Module,
    name: str,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    norm_weight_decay: float | None = None,
) -> torch.optim.Optimizer:
    """An optimiser; `norm_weight_decay` replaces the weight decay of vectors (norm parameters and biases)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if norm_weight_decay is None:
        groups: list = [{"params": parameters, "weight_decay": weight_decay}]
    else:
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": norm_weight_decay},
        ]
    if name in ("sgd", "sgd_nesterov"):
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=name == "sgd_nesterov")
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, momentum=momentum, eps=0.0316, alpha=0.9)
    raise ValueError(f"optimiser {name!r} is unknown; choose one of {', '.join(OPTIMIZERS)}")


class Schedule:
    """Learning-rate factor after `step` optimiser steps: linear warm-up, then one of `SCHEDULES` down to
    `final`.

    `step` divides by ten after each `step_size` fraction of training.
    """

    def __init__(
        self,
        name: str,
        total_steps: int,
        *,
        warmup_steps: int = 0,
        warmup_factor: float = 0.01,
        final: float = 0.0,
        step_size: float = 1 / 3,
    ):
        if name not in SCHEDULES:
            raise ValueError(
                f"learning-rate schedule {name!r} is unknown; choose one of {', '.join(SCHEDULES)}"
            )
        self.name, self.total_steps, self.warmup_steps = name, total_steps, warmup_steps
        self.warmup_factor, self.final, self.step_size = warmup_factor, final, step_size

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.warmup_factor + (1 - self.warmup_factor) * step / self.warmup_steps
        progress = min((step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1), 1.0)
        if self.name == "constant":
            return 1.0
        if self.name == "step":
            return 0.1 ** int(progress / self.step_size + 1e-9)
        decay = (1 + math.cos(math.pi * progress)) / 2 if self.name == "cosine" else 1 - progress
        return self.final + (1 - self.final) * decay


class WeightAverage:
    """Exponential moving average of a model (EMA), for evaluation.

    Parameters and floating-point buffers (BatchNorm statistics) are averaged. Everything else is copied:
    the average of two boolean column masks would be no mask.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        # A young average would be dominated by the initial weights: the usual warm-up of the decay.
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name].to(average.dtype), 1 - decay)
            else:
                average.copy_(current[name])

    def state_dict(self) -> dict:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]
