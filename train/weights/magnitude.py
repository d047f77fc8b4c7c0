"""Gradual magnitude pruning (Zhu and Gupta, 2017) towards any structure."""

from __future__ import annotations

from .method import Method, gradual


class Magnitude(Method):
    """At each update the ratio has risen, and what is smallest by then goes."""

    def update(self, names: list[str], progress: dict[str, float], step: int) -> None:
        for name in names:
            layer = self.layers[name]
            layer.mask = layer.project(layer.weight.detach(), gradual(progress[name]))
