"""The weights' side of `Sparsifier`: schedules, masks and their state, for all layers together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from semisparse.recipe import LayerRecipe

from .. import distributed
from .allocation import allocate
from .layer import Layer
from .methods import METHODS
from .order import similar_filters
from .patterns import choose_library

UPDATES = 40  # of a method, at most, between a layer's begin and end
INTERVAL = 4  # optimiser steps between two of them, at least
NOMINAL = 100  # optimiser steps that penalties count on where nobody says how many there will be


class WeightSparsity:
    """Arranges weight sparsity in the layers of `model` that `layers` names.

    Masks live here; in the model there are only zeros, which `step` puts back after each optimiser step.

    positions: how often each layer uses its weights per image; what is shared out among layers counts
    multiplications.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, LayerRecipe],
        total_steps: int | None,
        positions: Mapping[str, int] = MappingProxyType({}),
    ):
        self.total_steps = total_steps
        self.layers = {
            name: Layer(name, model.get_submodule(name), settings, positions=positions.get(name, 1))
            for name, settings in layers.items()
        }
        self.methods = {
            kind: METHODS[kind]({n: x for n, x in self.layers.items() if x.settings.method == kind})
            for kind in dict.fromkeys(layer.settings.method for layer in self.layers.values())
        }
        self.log: list[dict] = []

    @property
    def finalized(self) -> bool:
        return all(layer.frozen for layer in self.layers.values())

    # -- training -------------------------------------------------------------------------------------------
    def penalty(self, steps: int) -> Tensor | None:
        """The sum of the methods' penalties for the step to come, after `steps` steps."""
        terms = [method.penalty(names) for method, names in self._working(steps)]
        terms = [term for term in terms if term is not None]
        return sum(terms[1:], terms[0]) if terms else None

    @torch.no_grad()
    def step(self, steps: int) -> None:
        """Follow the schedule after `steps` optimiser steps, then put the removed weights back to zero."""
        for method, names in self._working(steps):
            ending = [n for n in names if self.total_steps is not None and self._progress(n, steps) >= 1]
            due = [n for n in names if n not in ending and self._due(n, steps)]
            method.after_step(names, {name: 1 / max(self._window(name), 1) for name in names})
            if due:
                self._update(method, due, steps)
            if ending:
                self._finish(method, ending)
        self.apply()

    @torch.no_grad()
    def finalize(self) -> None:
        """Give every layer its final mask."""
        for method in self.methods.values():
            names = [name for name, layer in method.layers.items() if not layer.frozen]
            if names:
                self._begin([name for name in names if not self.layers[name].begun])
                self._finish(method, names)
        self.apply()

    @torch.no_grad()
    def apply(self, model: nn.Module | None = None) -> None:
        """Zero what the masks remove, in this model or in another one of the same architecture."""
        for name, layer in self.layers.items():
            if layer.mask is not None:
                weight = (layer.module if model is None else model.get_submodule(name)).weight
                weight.mul_(layer.mask.to(weight.device))

    def _working(self, steps: int):
        """(method, names of its layers between begin and end) of every method that has some."""
        begun = [
            name
            for name, layer in self.layers.items()
            if not layer.frozen and (self.total_steps is None or self._progress(name, steps) >= 0)
        ]
        self._begin([name for name in begun if not self.layers[name].begun])
        for method in self.methods.values():
            names = [name for name in begun if name in method.layers]
            if names:
                yield method, names

    def _progress(self, name: str, steps: int) -> float:
        """From 0 at the layer's `begin` to 1 at its `end`; negative before, above 1 after."""
        if self.total_steps is None:
            return 1.0
        settings, now = self.layers[name].settings, steps / self.total_steps
        if settings.end == settings.begin:
            return 1.0 if now >= settings.end else -1.0
        return (now - settings.begin) / (settings.end - settings.begin)

    def _window(self, name: str) -> float:
        """Optimiser steps between the layer's `begin` and `end`."""
        settings = self.layers[name].settings
        return (settings.end - settings.begin) * (NOMINAL if self.total_steps is None else self.total_steps)

    def _due(self, name: str, steps: int) -> bool:
        if self.total_steps is None:
            return True
        settings = self.layers[name].settings
        every = settings.every or max(round(self._window(name) / UPDATES), INTERVAL)
        return (steps - round(settings.begin * self.total_steps)) % every == 0

    @torch.no_grad()
    def _begin(self, names: list[str]) -> None:
        """Decide from the weights as they are now what the layers' structure is made of."""
        for name in names:
            layer = self.layers[name]
            settings, context = layer.settings, layer.context
            if settings.scheme == "pattern":
                context = dataclasses.replace(context, library=self._library(settings))
            if settings.group > 1 and settings.reorder:
                order = similar_filters(layer.weight.detach(), settings, context)
                context = dataclasses.replace(context, order=distributed.broadcast_(order))
            layer.context, layer.begun = context, True

    def _library(self, settings: LayerRecipe) -> Tensor:
        """The most frequent patterns of all layers that keep as many entries: one library for the network.

        Layers that begin later share what the first of them chose.
        """
        alike = [
            layer
            for layer in self.layers.values()
            if layer.settings.scheme == "pattern" and layer.settings.entries == settings.entries
        ]
        largest = max(layer.settings.patterns for layer in alike)
        known = next((x.context.library for x in alike if x.settings.patterns == largest and x.begun), None)
        if known is None:
            known = choose_library([layer.weight.detach() for layer in alike], largest, settings.entries)
            known = distributed.broadcast_(known.to(torch.uint8)).bool()
        return known[: settings.patterns]

    def _update(self, method, names: list[str], steps: int) -> None:
        allocate(self.layers.values())
        row = method.update(names, {name: min(self._progress(name, steps), 1.0) for name in names}, steps)
        self._agree(names)
        if row is not None:
            self.log.append(row)

    def _finish(self, method, names: list[str]) -> None:
        allocate(self.layers.values())
        method.finish(names)
        self._agree(names)
        for name in names:
            self.layers[name].frozen = True

    def _agree(self, names: list[str]) -> None:
        """Rank 0's masks on every rank: ranks that differ by a rounding would drift apart."""
        for name in names:
            layer = self.layers[name]
            if layer.mask is not None and distributed.active():
                layer.mask = distributed.broadcast_(layer.mask.to(torch.uint8).contiguous()).bool()

    # -- state ----------------------------------------------------------------------------------------------
    def masks(self) -> dict[str, Tensor]:
        """The masks so far, bool on the CPU, by layer."""
        return {n: x.mask.cpu().clone() for n, x in self.layers.items() if x.mask is not None}

    def state_dict(self) -> dict:
        return {
            "layers": {
                name: {
                    "mask": None if layer.mask is None else layer.mask.cpu().clone(),
                    "library": layer.context.library,
                    "order": layer.context.order,
                    "begun": layer.begun,
                    "frozen": layer.frozen,
                }
                for name, layer in self.layers.items()
            },
            "methods": {kind: method.state_dict() for kind, method in self.methods.items()},
        }

    def check_state_dict(self, state: dict) -> None:
        """Raises ValueError if `state` is not of these layers."""
        if list(state["layers"]) != list(self.layers):
            raise ValueError(
                f"the sparsifier's state has weights of the layers {list(state['layers'])[:4]}, this model "
                f"{list(self.layers)[:4]}; use the model that the run began with"
            )
        for name, values in state["layers"].items():
            shape = tuple(self.layers[name].weight.shape)
            if values["mask"] is not None and tuple(values["mask"].shape) != shape:
                raise ValueError(
                    f"the sparsifier's state has for {name!r} a weight mask of shape "
                    f"{tuple(values['mask'].shape)}, this model's weight has {shape}; use the same model"
                )

    def load_state_dict(self, state: dict) -> None:
        self.check_state_dict(state)
        for name, values in state["layers"].items():
            layer = self.layers[name]
            layer.mask = None if values["mask"] is None else values["mask"].to(layer.weight.device)
            layer.context = dataclasses.replace(
                layer.context, library=values["library"], order=values["order"]
            )
            layer.begun, layer.frozen = values["begun"], values["frozen"]
        for kind, method in self.methods.items():
            method.load_state_dict(state["methods"][kind])
