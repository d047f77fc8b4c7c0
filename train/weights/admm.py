"""Extended ADMM (PatDNN, Niu et al., ASPLOS 2020): training that pulls the weights towards their structure.

    minimise f(W) + g(Z) + h(Y)   subject to   W = Z, W = Y

where g and h are 0 on weights with the scheme's structure (patterns) and with the allowed number of kernels
(connectivity), and infinite elsewhere. In scaled form, with duals U and V:

    W: optimiser steps on f(W) + rho/2 |W - Z + U|^2 + rho/2 |W - Y + V|^2
    Z = nearest weight with the scheme's structure to W + U;  U += W - Z
    Y = nearest weight with few kernels to W + V;              V += W - Y

The norms are squared: published code takes the norm itself, whose pull does not fade near the solution. The
duals are scaled by rho, so they are divided by the factor by which rho grows. Y ranks kernels by what Z's
pattern keeps of them, so that the two agree on which kernels are worth having; the last projection is the
nearest weight that has both structures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .layer import Layer
from .method import Method

STAGES, GROWTH = 4, 10.0  # rho grows tenfold from stage to stage, up to the recipe's


@dataclass
class _Variables:
    """Of one layer; tensors like the weight. `kept` and `kernels` are where Z and Y are not zero."""

    rho: float
    u: Tensor
    z: Tensor
    kept: Tensor
    v: Tensor | None = None
    y: Tensor | None = None
    kernels: Tensor | None = None


class Admm(Method):
    def __init__(self, layers: dict[str, Layer]):
        super().__init__(layers)
        self._variables: dict[str, _Variables] = {}

    def penalty(self, names: list[str]) -> Tensor | None:
        total = None
        for name in names:
            variables, weight = self._variables.get(name), self.layers[name].weight
            if variables is None:
                continue
            term = (weight - (variables.z - variables.u)).square().sum()
            if variables.y is not None:
                term = term + (weight - (variables.y - variables.v)).square().sum()
            term = variables.rho / 2 * term
            total = term if total is None else total + term
        return total

    @torch.no_grad()
    def update(self, names: list[str], progress: dict[str, float], step: int) -> dict:
        """One step of Z, Y, U and V. The row: primal residuals |W - Z| / |W| and |W - Y| / |W| and the shares
        of weights and of kernels whose keeping changed, over all layers `names`."""
        squares = {"weight": 0.0, "z": 0.0, "y": 0.0}
        changed, kernels_changed, disagreed = [0, 0], [0, 0], [0, 0]
        rho = 0.0
        for name in names:
            layer = self.layers[name]
            weight = layer.weight.detach()
            before = self._variables.get(name)
            now = self._step(layer, weight, before, progress[name])
            self._variables[name] = now
            rho = max(rho, now.rho)
            squares["weight"] += weight.square().sum().item()
            squares["z"] += (weight - now.z).square().sum().item()
            if before is not None:
                _count(changed, _kernels_differ(before.kept, now.kept))
            if now.y is not None:
                squares["y"] += (weight - now.y).square().sum().item()
                if before is not None:
                    _count(kernels_changed, before.kernels != now.kernels)
                final = layer.kernels(weight * layer.structure(weight)).flatten(2)[..., 0]
                _count(disagreed, final != now.kernels)
        row = {
            "step": step,
            "rho": rho,
            "residual": (squares["z"] / max(squares["weight"], 1e-30)) ** 0.5,
            "changed": _share(changed),
        }
        if disagreed[1]:
            row["connectivity_residual"] = (squares["y"] / max(squares["weight"], 1e-30)) ** 0.5
            row["connectivity_changed"] = _share(kernels_changed)
            row["disagreement"] = _share(disagreed)
        return row

    def _step(self, layer: Layer, weight: Tensor, before: _Variables | None, progress: float) -> _Variables:
        rho = layer.settings.rho * GROWTH ** (min(int(progress * STAGES), STAGES - 1) - STAGES + 1)
        rescale = 0.0 if before is None else before.rho / rho
        u = torch.zeros_like(weight) if before is None else before.u * rescale
        kept = layer.structure(weight + u)
        z = (weight + u) * kept
        now = _Variables(rho, u + weight - z, z, kept)
        if layer.settings.connectivity > 0:
            v = torch.zeros_like(weight) if before is None else before.v * rescale
            kernels = layer.kernels((weight + v) * kept)
            y = (weight + v) * kernels
            now.v, now.y, now.kernels = v + weight - y, y, kernels.flatten(2)[..., 0]
        return now

    def finish(self, names: list[str]) -> None:
        super().finish(names)
        for name in names:
            self._variables.pop(name, None)

    def state_dict(self) -> dict:
        return {
            name: {k: v for k, v in vars(variables).items() if v is not None}
            for name, variables in self._variables.items()
        }

    def load_state_dict(self, state: dict) -> None:
        self._variables = {
            name: _Variables(
                **{
                    key: value.to(self.layers[name].weight.device) if isinstance(value, Tensor) else value
                    for key, value in values.items()
                }
            )
            for name, values in state.items()
        }


def _kernels_differ(a: Tensor, b: Tensor) -> Tensor:
    return (a != b).flatten(2).any(-1) if a.dim() > 2 else a != b


def _count(counts: list[int], flags: Tensor) -> None:
    counts[0] += int(flags.sum())
    counts[1] += flags.numel()


def _share(counts: list[int]) -> float:
    return counts[0] / counts[1] if counts[1] else 0.0
