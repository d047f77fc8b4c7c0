"""Extended ADMM (PatDNN, Niu et al., ASPLOS 2020): training that pulls the weights towards their structure.

    minimise f(W) + g(Z) + h(Y)   subject to   W = Z, W = Y

where g and h are 0 on weights with the scheme's structure (patterns) and with the allowed number of kernels
(connectivity), and infinite elsewhere. In scaled form, with duals U and V:

    W: optimiser steps on f(W) + rho/2 |W - Z + U|^2 + rho/2 |W - Y + V|^2
    Z = nearest weight with the scheme's structure to W + U;   U += W - Z
    Y = nearest weight with few enough kernels to W + V;       V += W - Y

What the paper leaves open, or published code does otherwise:

- The norms are squared. The pull of a plain norm does not fade near the solution.
- rho grows a thousandfold, a little at each update instead of tenfold now and then. Scaled duals contain
  1/rho, so they shrink by the factor by which rho grows.
- Between two updates W closes only a part c of its distance to Z - U. Full dual steps would then pile up (the
  amplitude of U is about |W| / sqrt(c)) until they dominate the loss, so dual steps are c times W - Z. That
  is close to critical damping of the linear recursion; c is measured, as the largest part seen so far.
- Y ranks kernels by what Z's structure keeps of them, so that Z and Y agree on which kernels are worth
  having; the last projection is the nearest weight to W that has both structures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .layer import Layer
from .method import Method

GROWTH = 1000.0  # of rho, from begin to end


@dataclass
class _Copy:
    """A structured copy of a weight and its dual: Z and U, or Y and V.

    Attributes:
        value, dual: like the weight.
        kept: bool like the weight, the structure of `value`.
        distance: of the weight to its target, the value less the dual, after the last update.
        closed: largest part of that distance that was gone at the next update.
    """

    value: Tensor
    dual: Tensor
    kept: Tensor
    distance: float
    closed: float

    @property
    def target(self) -> Tensor:
        return self.value - self.dual


class Admm(Method):
    def __init__(self, layers: dict[str, Layer]):
        super().__init__(layers)
        self._copies: dict[str, list[_Copy]] = {}
        self._rho: dict[str, float] = {}

    def penalty(self, names: list[str]) -> Tensor | None:
        terms = [
            self._rho[name] / 2 * (self.layers[name].weight - copy.target).square().sum()
            for name in names
            for copy in self._copies.get(name, ())
        ]
        return sum(terms[1:], terms[0]) if terms else None

    @torch.no_grad()
    def update(self, names: list[str], progress: dict[str, float], step: int) -> dict:
        """One step of Z, U, Y and V.

        The row for the log, over the layers `names`: `rho`; `residual`, |W - Z| / |W|; `changed`, share of
        kernels whose pattern (or other structure) is another one than before, among those that Y keeps; with
        connectivity `connectivity_residual`, |W - Y| / |W|, and `connectivity_changed`, share of all kernels
        that went or came back. Where connectivity is all there is, `residual` and `changed` are Y's.
        """
        total, residuals = 0.0, [0.0, 0.0]
        changed, counted = [0, 0], [0, 0]
        for name in names:
            layer, before = self.layers[name], self._copies.get(name)
            weight = layer.weight.detach()
            now = self._advance(layer, weight, before, progress[name])
            self._copies[name] = now
            total += weight.square().sum().item()
            kernels = torch.ones_like(now[-1].kept) if len(now) == 1 else now[1].kept
            for i, (copy, among) in enumerate(zip(now, (kernels, torch.ones_like(kernels)), strict=False)):
                residuals[i] += (weight - copy.value).square().sum().item()
                counted[i] += int(_kernels(among).sum())
                if before is not None:
                    changed[i] += int(_kernels((copy.kept != before[i].kept) & among).sum())
        keys = (("residual", "changed"), ("connectivity_residual", "connectivity_changed"))
        row = {"step": step, "rho": max(self._rho[name] for name in names)}
        for i in range(max(len(self._copies[name]) for name in names)):
            row[keys[i][0]] = (residuals[i] / max(total, 1e-30)) ** 0.5
            row[keys[i][1]] = changed[i] / max(counted[i], 1)
        return row

    def _advance(
        self, layer: Layer, weight: Tensor, before: list[_Copy] | None, progress: float
    ) -> list[_Copy]:
        rho = layer.settings.rho * GROWTH ** (progress - 1)
        shrink = self._rho.get(layer.name, rho) / rho
        self._rho[layer.name] = rho
        if layer.scheme is None:
            return [_advance(before and before[-1], weight, shrink, layer.kernels)]
        copies = [_advance(before and before[0], weight, shrink, layer.structure)]
        if layer.settings.connectivity > 0:
            kept = copies[0].kept
            copies.append(_advance(before and before[1], weight, shrink, lambda w: layer.kernels(w * kept)))
        return copies

    def finish(self, names: list[str]) -> None:
        super().finish(names)
        for name in names:
            self._copies.pop(name, None)

    def state_dict(self) -> dict:
        return {
            name: {"rho": self._rho[name], "copies": [dict(vars(copy)) for copy in copies]}
            for name, copies in self._copies.items()
        }

    def load_state_dict(self, state: dict) -> None:
        self._rho = {name: values["rho"] for name, values in state.items()}
        self._copies = {
            name: [
                _Copy(
                    **{
                        k: v.to(self.layers[name].weight.device) if isinstance(v, Tensor) else v
                        for k, v in copy.items()
                    }
                )
                for copy in values["copies"]
            ]
            for name, values in state.items()
        }


def _kernels(flags: Tensor) -> Tensor:
    return flags.flatten(2).any(-1) if flags.dim() > 2 else flags


def _advance(before: _Copy | None, weight: Tensor, shrink: float, structure) -> _Copy:
    if before is None:
        dual, closed = torch.zeros_like(weight), 0.0
    else:
        left = (weight - before.target).norm().item()
        closed = max(before.closed, 1 - left / max(before.distance, 1e-30))
        dual = before.dual * shrink
    kept = structure(weight + dual)
    value = (weight + dual) * kept
    dual = dual + closed * (weight - value)
    return _Copy(value, dual, kept, (weight - value + dual).norm().item(), closed)
