"""What a method of weight sparsity is: how training is brought to the structure that a scheme asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from .layer import Layer


def gradual(progress: float) -> float:
    """How much of the final ratio is removed: 1 - (1 - p)^3 (Zhu and Gupta, 2017), fast, then slowly."""
    return 1 - (1 - progress) ** 3


class Method(ABC):
    """Serves all layers that name it. Between a layer's `begin` and `end`, `update` is called from time to
    time and `penalty` in every step; then `finish`, once. After that, `layer.mask` stays as it is.

    `progress` is how much of the time between `begin` and `end` has passed, 0 to 1.
    """

    def __init__(self, layers: dict[str, Layer]):
        self.layers = layers

    def penalty(self, names: list[str]) -> Tensor | None:
        """A differentiable scalar to add to the loss for the layers `names`; None for nothing."""
        return None

    def after_step(self, names: list[str], share: dict[str, float]) -> None:
        """Change the weights right after an optimiser step. `share` is the part that one step is of the time
        between the layer's begin and end."""
        return None

    @abstractmethod
    def update(self, names: list[str], progress: dict[str, float], step: int) -> dict | None:
        """Look at the weights after an optimiser step; may set `layer.mask`. May return a row for the log."""

    def finish(self, names: list[str]) -> None:
        """Set the final `layer.mask` of `names` and drop what is no longer needed."""
        for name in names:
            self.layers[name].mask = self.layers[name].project(self.layers[name].weight.detach())

    def state_dict(self) -> dict:
        """Tensors and plain values, for the layers that are not finished."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state_dict` was taken."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given {list(state)}")
