"""Gradual magnitude pruning (Zhu and Gupta, 2017) towards any structure."""

from __future__ import annotations

from .method import Method


class Magnitude(Method):
    """The ratio rises as 1 - (1 - p)^3; each time, what is smallest by then goes."""

    def update(self, names: list[str], progress: dict[str, float], step: int) -> None:
        for name in names:
            layer = self.layers[name]
            layer.mask = layer.project(layer.weight.detach(), 1 - (1 - progress[name]) ** 3)
