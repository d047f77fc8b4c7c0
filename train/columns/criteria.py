"""Criteria: where the scores come from by which columns are removed.

A criterion serves all layers of a model that name it. `observe` is called once after each optimiser step, and
`scores(names)` whenever masks are to be made. Every rank computes the same scores.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .. import distributed
from .coherence import propagate
from .saliency import SaliencyRecorder

Sizes = dict[str, tuple[int, int]]


class RandomCriterion:
    """Fresh random scores at every selection; in the end, those of the step with the lowest training loss.

    With `coherent`, one score per pixel of the network's input, propagated to all layers: the criterion of
    Grimaldi et al. (ICCVW 2023). Differences from the published code: adaptive pooling (any input size), the
    same scores on all ranks, and a mask is only a candidate once it has removed something. Their choice by
    the loss of a single batch is kept, since it *is* the criterion; batch noise and the smaller ratio of
    early steps dominate it.
    """

    selects_every_step = True

    def __init__(
        self,
        coherent: bool,
        modules: dict[str, nn.Conv2d],
        sizes: Sizes,
        input_size: tuple[int, int],
        generator: torch.Generator,
    ):
        self.coherent, self.sizes, self.input_size, self.generator = coherent, sizes, input_size, generator
        self.current: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_loss = math.inf

    def observe(self, loss: float | None, masked: bool) -> None:
        """`loss` of the step just taken, whose masks came from the last scores if `masked`."""
        if loss is None or not masked or not self.current:
            return
        loss = distributed.mean_(torch.tensor(loss, dtype=torch.float64)).item()
        if loss < self.best_loss:
            self.best_loss, self.best = loss, self.current

    def scores(self, names: list[str], final: bool) -> dict[str, Tensor]:
        if final:
            maps = self.best or self.current or self._draw()
        else:
            maps = self.current = self._draw()
        if self.coherent:
            return {name: propagate(maps["input"], self.sizes[name]) for name in names}
        return {name: maps[name] for name in names}

    def _draw(self) -> dict[str, Tensor]:
        sizes = {"input": self.input_size} if self.coherent else self.sizes
        return {name: torch.rand(size, generator=self.generator) for name, size in sizes.items()}

    def freeze(self, names: list[str]) -> None:
        """Nothing more will be asked about these layers."""

    def state_dict(self) -> dict:
        return {"current": self.current, "best": self.best, "best_loss": self.best_loss}

    def load_state_dict(self, state: dict) -> None:
        self.current, self.best, self.best_loss = (
            dict(state["current"]),
            dict(state["best"]),
            state["best_loss"],
        )


class SaliencyCriterion:
    """Learned: a moving average of each column's Fisher information, measured while training (see
    saliency.py).

    Each layer is ranked on its own. Masks of different layers still come out coherent, since what matters to
    one layer matters to its neighbours (mostly the middle of the picture, and the phase that a strided
    convolution behind it reads most). Masks grow with the schedule, and every selection starts from the
    average alone, so a column that was removed too early comes back.
    """

    selects_every_step = False
    MOMENTUM = 0.9  # of the moving average, per selection

    def __init__(self, modules: dict[str, nn.Conv2d], sizes: Sizes):
        self.sizes = sizes
        self.recorders = {name: SaliencyRecorder(module, sizes[name]) for name, module in modules.items()}
        self.average: dict[str, Tensor] = {}

    def observe(self, loss: float | None, masked: bool) -> None:
        """The recorders have seen the step already."""

    def scores(self, names: list[str], final: bool) -> dict[str, Tensor]:
        self._update()
        unseen = [name for name in names if name not in self.average]
        if unseen:
            raise RuntimeError(
                f"criterion 'saliency' has seen no gradient of {unseen[0]!r}: train (forward in train "
                "mode and backward) "
                "before the mask is chosen, or use criterion coherent_random for layers that get no gradient"
            )
        return {name: self.average[name] for name in names}

    def _update(self) -> None:
        taken = {name: recorder.take() for name, recorder in self.recorders.items()}
        if not taken:
            return
        # One collective for all layers; the last element of each row counts the pictures.
        flat = torch.cat(
            [torch.cat([total.flatten(), total.new_tensor([count])]) for total, count in taken.values()]
        )
        distributed.sum_(flat)
        for name, part in zip(
            taken, flat.split([total.numel() + 1 for total, _ in taken.values()]), strict=True
        ):
            if part[-1] == 0:
                continue
            mean = (part[:-1] / part[-1]).view(self.sizes[name])
            if name in self.average:
                self.average[name] = self.MOMENTUM * self.average[name] + (1 - self.MOMENTUM) * mean
            else:
                self.average[name] = mean

    def freeze(self, names: list[str]) -> None:
        for name in names:
            if name in self.recorders:
                self.recorders.pop(name).remove()

    def state_dict(self) -> dict:
        return {"average": self.average}

    def load_state_dict(self, state: dict) -> None:
        self.average = dict(state["average"])
