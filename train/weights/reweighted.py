"""Reweighted regularisation (Ma et al., 2020): boxes of weights fade out while training, and how many do in
each layer is found by training itself.

The penalty of a box with mean square m_g is a_g * m_g / m, where m is what the strong boxes of its layer have
(the mean of m_g, weighted by m_g: boxes that have faded do not count). Its factor a_g = 1 / (m_g / m +
EPSILON) is re-estimated from time to time (Candes et al., 2008): strong boxes pay about as much whatever
their strength, weak ones are driven to zero unless the loss holds them.

The penalty is not a term of the loss. It acts through its proximal operator after each optimiser step, as
decoupled weight decay does: w / (1 + rate * a_g), with the norm of the layer restored, since only the
proportions matter. So it cannot overshoot, and learning rate, momentum and loss scaling do not change it.

With a ratio, the rate rises while more is left than the schedule wants, and is 0 while less is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import Boxes
from .layer import Layer
from .method import Method, gradual

EPSILON = 0.01  # boxes with less than this of a strong box's mean square count as gone
PRICE_STEP = 1.3


@dataclass
class _State:
    """Of one layer: what the recipe's strength is multiplied with, whether anything is to shrink at present,
    and the factors, like the weight."""

    price: float
    shrinking: bool
    factors: Tensor


class Reweighted(Method):
    def __init__(self, layers: dict[str, Layer]):
        super().__init__(layers)
        self._states: dict[str, _State] = {}

    @torch.no_grad()
    def after_step(self, names: list[str], share: dict[str, float]) -> None:
        for name in names:
            layer, weight = self.layers[name], self.layers[name].weight
            if name not in self._states:
                self._states[name] = _State(1.0, True, _factors(layer)[0])
            state = self._states[name]
            if not state.shrinking:
                continue
            before = torch.linalg.vector_norm(weight)
            weight.div_(1 + layer.settings.strength * state.price * share[name] * state.factors)
            weight.mul_(before / torch.linalg.vector_norm(weight).clamp(min=1e-30))

    @torch.no_grad()
    def update(self, names: list[str], progress: dict[str, float], step: int) -> dict:
        """Re-estimate factors and prices. The row: share of the multiplications that is `left` of all layers
        `names` (counted smoothly), and that the boxes which count as gone had (`faded`)."""
        left, faded = {}, {}
        for name in names:
            layer = self.layers[name]
            factors, left[name] = _factors(layer)
            price = self._states[name].price if name in self._states else 1.0
            self._states[name] = _State(price, True, factors)
            faded[name] = 1 - _mask(layer, EPSILON).double().mean().item()
        for ratio, pool in self._pools(names).items():
            now = self._share(pool, left)
            for name in pool if ratio > 0 else ():
                state = self._states[name]
                state.shrinking = now > 1 - ratio * gradual(progress[name])
                state.price *= PRICE_STEP if state.shrinking else 1 / PRICE_STEP
        return {"step": step, "left": self._share(names, left), "faded": self._share(names, faded)}

    @torch.no_grad()
    def finish(self, names: list[str]) -> None:
        """Remove the weakest boxes: as many as the ratio says, of all layers together, or else the faded."""
        for ratio, pool in self._pools(names).items():
            threshold = self._threshold(pool, ratio) if ratio > 0 else EPSILON
            for name in pool:
                self.layers[name].mask = _mask(self.layers[name], threshold)
        for name in names:
            self._states.pop(name, None)

    def _threshold(self, names: list[str], ratio: float) -> float:
        """The threshold of `_mask` at which `ratio` of the multiplications is gone, by bisection."""

        def removed(threshold: float) -> float:
            masks = {name: _mask(self.layers[name], threshold) for name in names}
            return 1 - self._share(names, {name: mask.double().mean().item() for name, mask in masks.items()})

        low, high = 0.0, 1.0
        while removed(high) < ratio and high < 1e12:
            low, high = high, 4 * high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if removed(middle) < ratio else (low, middle)
        return min(low, high, key=lambda threshold: abs(removed(threshold) - ratio))

    def _pools(self, names: list[str]) -> dict[float, list[str]]:
        """The layers that share a ratio."""
        pools: dict[float, list[str]] = {}
        for name in names:
            pools.setdefault(self.layers[name].settings.ratio, []).append(name)
        return pools

    def _share(self, names: Iterable[str], parts: dict[str, float]) -> float:
        """What `parts` of each layer are of the multiplications of all layers `names`."""
        macs = {name: self.layers[name].weight.numel() * self.layers[name].positions for name in names}
        return sum(macs[name] * parts[name] for name in macs) / max(sum(macs.values()), 1)

    def state_dict(self) -> dict:
        return {name: dict(vars(state)) for name, state in self._states.items()}

    def load_state_dict(self, state: dict) -> None:
        self._states = {
            name: _State(
                values["price"], values["shrinking"], values["factors"].to(self.layers[name].weight.device)
            )
            for name, values in state.items()
        }


def _relative(boxes: Boxes, weight: Tensor) -> Tensor:
    """Mean squares of the boxes in units of what strong boxes have."""
    means = boxes.mean_squares(weight)
    energies = means * boxes.sizes.to(means.device)
    return means * (energies.sum() / (energies * means).sum().clamp(min=1e-30))


def _factors(layer: Layer) -> tuple[Tensor, float]:
    """The factor of each weight, and the smooth count: the share of the weights that is left."""
    weight, cuts = layer.weight.detach(), layer.cuts()
    factors, left = torch.zeros_like(weight), torch.ones_like(weight)
    for boxes in cuts:
        means = _relative(boxes, weight)
        factors += boxes.expand(1 / (means + EPSILON))
        left *= boxes.expand(means / (means + EPSILON))
    return factors / len(cuts), left.mean().item()


def _mask(layer: Layer, threshold: float) -> Tensor:
    """The boxes above `threshold`, in units of strong ones; at least one of each cut."""
    mask = torch.ones_like(layer.weight, dtype=torch.bool)
    for boxes in layer.cuts():
        means = _relative(boxes, layer.weight)
        mask &= boxes.expand((means > threshold) | (means == means.max()))
    return mask
