"""The one object that training code talks to: `Sparsifier`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from semisparse.masking import (
    attach_column_mask,
    column_mask,
    detach_column_mask,
    masked_modules,
    set_column_mask,
)
from semisparse.recipe import Recipe
from semisparse.statistics import output_sizes

from . import distributed
from .columns.allocation import allocate
from .columns.automatic import Choice, fix_granularity
from .columns.criteria import RandomCriterion, SaliencyCriterion
from .columns.granularity import is_mask_of, make_mask
from .columns.held_out import HeldOut, HeldOutCriterion
from .columns.schedule import scheduled_ratio
from .weights.sparsity import WeightSparsity

VERSION = 2


class Sparsifier:
    """Arranges the sparsity of `recipe` in `model` while it trains::

        sparsifier = Sparsifier(model, recipe, example_input, total_steps=epochs * len(loader))
        ...
        loss = criterion(model(x), y) + sparsifier.penalty()
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        sparsifier.step(loss)
        ...
        sparsifier.finalize()

    Column masks become buffers of the convolutions (see `semisparse.masking`) and removed weights are zeros,
    so the model can be copied, averaged, pickled and checkpointed as before. Under DistributedDataParallel,
    construct it on every rank with the bare or the wrapped model; all ranks hold the same masks.

    Args:
        model: the network to train; masks (all True at first) are attached to its convolutions.
        recipe: what to arrange. It is checked against the model here, before any training.
        example_input: a batch (N, C, H, W) of the size to train at: masks belong to this size. One forward
            pass in eval mode finds the layers' output sizes. Where the recipe says `granularity: auto`,
            layers are timed at this size: the sparsifier's own `recipe` names what was chosen, and `choices`
            says what was measured.
        total_steps: number of optimiser steps of the whole training, which the recipe's `begin` and `end` are
            fractions of. Without it there is no schedule: every `step` selects masks at the full ratio (ADMM
            updates its variables at the full penalty instead), and they freeze in `finalize`.
        seed: of the random criteria; rank 0's counts.
        held_out: batches that are not trained on, which criterion `held_out` compares masks on.

    A column mask that the model brings along, such as one from a sparse checkpoint, stays as it is if it is
    what the recipe asks for: of this size, ratio and granularity. Every other one is dropped.

    Raises ValueError if recipe and model do not fit, or if a layer named in it is not used in the forward
    pass; RuntimeError if a granularity is `auto` and the layer cannot be timed here.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        example_input: Tensor,
        *,
        total_steps: int | None = None,
        seed: int = 0,
        held_out: HeldOut | None = None,
    ):
        if not isinstance(recipe, Recipe):
            raise ValueError(
                f"recipe is a {type(recipe).__name__}, expected semisparse.Recipe; load one with "
                "Recipe.load(name)"
            )
        if total_steps is not None and total_steps < 1:
            raise ValueError(f"total_steps is {total_steps}, expected at least 1, or None for no schedule")
        self.model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.asked, self.total_steps = recipe, total_steps
        self.steps = 0
        layers = recipe.resolve(self.model)
        brought = {name: column_mask(module).clone() for name, module in masked_modules(self.model).items()}
        for name in brought:
            detach_column_mask(self.model.get_submodule(name))
        calls = _calls(self.model, layers, example_input)
        sized = [name for name, layer in layers.items() if layer.columns.ratio > 0]
        self._output_sizes = {name: _only_size(name, calls[name]) for name in sized}
        self.recipe, self.choices = fix_granularity(self.model, recipe, example_input)
        sparse = {name: layer for name, layer in layers.items() if layer.sparse_weights}
        positions = {name: sum(count for _, count in calls[name]) for name in sparse}
        self.weights = WeightSparsity(self.model, sparse, total_steps, positions)
        seeds = distributed.broadcast_(torch.tensor([seed], dtype=torch.int64))
        self._generator = torch.Generator().manual_seed(int(seeds[0]))
        self._input_size = tuple(example_input.shape[-2:])
        self._held_out = held_out
        self._criteria: dict = {}
        self._modules: dict[str, nn.Conv2d] = {}
        self._arrange_columns()
        self._keep(brought)

    def _arrange_columns(self) -> None:
        """Masks and criteria for the layers that the recipe (with its granularities chosen) takes columns
        from; none for others."""
        for kind, criterion in self._criteria.items():
            criterion.freeze(self._named(kind))
        for module in self._modules.values():
            detach_column_mask(module)
        layers = self.recipe.resolve(self.model)
        self.columns = {name: layer.columns for name, layer in layers.items() if layer.columns.ratio > 0}
        self._modules = {name: self.model.get_submodule(name) for name in self.columns}
        self.sizes = {name: self._output_sizes[name] for name in self.columns}
        for name, size in self.sizes.items():
            attach_column_mask(self._modules[name], torch.ones(size, dtype=torch.bool))
        self.frozen: set[str] = set()
        self._ratios = dict.fromkeys(self.columns, 0.0)  # what the present masks were made for
        self._criteria = {
            kind: self._make_criterion(kind)
            for kind in dict.fromkeys(c.criterion for c in self.columns.values())
        }

    def _keep(self, masks: dict[str, Tensor]) -> None:
        """Freeze the layers whose mask in `masks` is what the recipe asks for at the end."""
        masks = {name: mask for name, mask in masks.items() if self.sizes.get(name) == tuple(mask.shape)}
        ratios = {name: self.columns[name].ratio for name in masks}
        for pool in self._pools(list(self.columns)):
            own = {name: 1 - masks[name].double().mean().item() for name in pool if name in masks}
            cost = {n: macs * math.prod(self.sizes[n]) for n, macs in self._macs(pool).items()}
            removed = sum(own.get(name, 0.0) * cost[name] for name in pool) / sum(cost.values())
            if abs(removed - self.columns[pool[0]].ratio) < 0.01:
                ratios |= own
        for name, mask in masks.items():
            c = self.columns[name]
            if is_mask_of(mask, ratios[name], c.granularity, c.round_to):
                set_column_mask(self._modules[name], mask)
                self._ratios[name] = ratios[name]
                self._freeze([name], self._criteria[c.criterion])

    def _make_criterion(self, kind: str):
        names = self._named(kind)
        modules, sizes = {n: self._modules[n] for n in names}, {n: self.sizes[n] for n in names}
        if kind == "saliency":
            return SaliencyCriterion(modules, sizes)
        if kind == "held_out":
            columns = {name: self.columns[name] for name in names}
            return HeldOutCriterion(
                self.model, modules, columns, sizes, self._input_size, self._held_out, self._generator
            )
        return RandomCriterion(kind == "coherent_random", modules, sizes, self._input_size, self._generator)

    def _named(self, kind: str) -> list[str]:
        return [name for name, columns in self.columns.items() if columns.criterion == kind]

    # -- training -------------------------------------------------------------------------------------------
    def penalty(self) -> Tensor:
        """What to add to the loss of the next step: a scalar, 0 while no method has a penalty.

        It is computed in the weights' own precision: call it outside of autocast.
        """
        penalty = self.weights.penalty(self.steps)
        if penalty is not None:
            return penalty
        parameter = next(self.model.parameters(), None)
        return torch.zeros((), device=parameter.device if parameter is not None else None)

    def step(self, loss: Tensor | float | None = None) -> None:
        """Call after every `optimizer.step()`: follows the schedule, sets the masks of the next step and puts
        removed weights back to zero.

        `loss` is that of the step just taken. The random criteria keep the mask with the lowest one; without
        it they freeze the last mask drawn.
        """
        self.steps += 1
        self._held_out = None  # the criterion has it, until it needs it no more
        self.weights.step(self.steps)
        if self._columns_finalized:
            return
        if isinstance(loss, Tensor):
            loss = loss.detach().item()
        progress = 1.0 if self.total_steps is None else self.steps / self.total_steps
        for kind, criterion in self._criteria.items():
            names = [name for name in self._named(kind) if name not in self.frozen]
            if not names:
                continue
            criterion.observe(loss, masked=any(self._ratios[name] > 0 for name in names))
            due = [name for name in names if self._due(name, criterion, progress)]
            ending = [
                name for name in names if self.total_steps is not None and progress >= self.columns[name].end
            ]
            ongoing = [name for name in due if name not in ending]
            if ongoing:
                self._select(ongoing, criterion.scores(ongoing, final=False), progress)
            if ending:
                self._select(ending, criterion.scores(ending, final=True), progress)
                self._freeze(ending, criterion)

    def finalize(self) -> None:
        """Bring every layer to its full ratio, freeze all masks and remove what recorded them. Idempotent."""
        self.weights.finalize()
        for kind, criterion in self._criteria.items():
            names = [name for name in self._named(kind) if name not in self.frozen]
            if not names:
                continue
            self._select(names, criterion.scores(names, final=True), 1.0)
            self._freeze(names, criterion)

    @property
    def finalized(self) -> bool:
        """Whether all masks are frozen, those of columns and those of weights."""
        return self._columns_finalized and self.weights.finalized

    @property
    def _columns_finalized(self) -> bool:
        return len(self.frozen) == len(self.columns)

    def _due(self, name: str, criterion, progress: float) -> bool:
        columns = self.columns[name]
        if scheduled_ratio(columns, progress) == 0:
            return False
        every = columns.every
        if every is None:
            every = 1
            if not criterion.selects_every_step and self.total_steps is not None:
                every = max(round((columns.end - columns.begin) * self.total_steps / 40), 1)
        return self.steps % every == 0

    def _select(self, names: list[str], scores: dict[str, Tensor], progress: float) -> None:
        ratios = self._shares(names, scores, progress)
        for name in names:
            columns = self.columns[name]
            set_column_mask(
                self._modules[name],
                make_mask(scores[name], ratios[name], columns.granularity, columns.round_to),
            )
            self._ratios[name] = ratios[name]

    def _shares(self, names: list[str], scores: dict[str, Tensor], progress: float) -> dict[str, float]:
        """Fraction that each of the layers loses at `progress`."""
        ratios = {name: scheduled_ratio(self.columns[name], progress) for name in names}
        for pool in self._pools(names):
            ratios |= allocate(scores, self._macs(pool), ratios[pool[0]])
        return ratios

    def _pools(self, names: list[str]) -> list[list[str]]:
        """Those of the layers that share a ratio out among themselves (`scope: global`)."""
        pools: dict[tuple, list[str]] = {}
        for name in names:
            c = self.columns[name]
            if c.scope == "global":
                pools.setdefault((c.ratio, c.initial, c.begin, c.end, c.every), []).append(name)
        return list(pools.values())

    def _macs(self, names: list[str]) -> dict[str, int]:
        """Multiplications for one column."""
        return {name: self._modules[name].weight.numel() for name in names}

    def _freeze(self, names: list[str], criterion) -> None:
        criterion.freeze(names)
        self.frozen.update(names)

    def retraining_steps(self) -> int:
        """Steps of the schedule after the last mask freezes: the time to recover, for BatchNorm too."""
        ends = [columns.end for columns in self.columns.values()]
        ends += [layer.settings.end for layer in self.weights.layers.values()]
        return round((1 - max(ends, default=0.0)) * (self.total_steps or 0))

    # -- state ----------------------------------------------------------------------------------------------
    def masks(self) -> dict[str, Tensor]:
        """The present column masks, bool (OH, OW) on the CPU, by layer."""
        return {name: column_mask(module).detach().cpu().clone() for name, module in self._modules.items()}

    def apply_to(self, model: nn.Module) -> None:
        """Make another model of the same architecture, such as an average of it, as sparse as this one.

        The present column masks are copied and the weights that are removed at present become zero.
        """
        for name, mask in self.masks().items():
            attach_column_mask(model.get_submodule(name), mask)
        self.weights.apply(model)

    def state_dict(self) -> dict:
        """Everything that a resumed run needs, as tensors and plain values."""
        return {
            "version": VERSION,
            "steps": self.steps,
            "total_steps": self.total_steps,
            "recipe": self.recipe.to_dict(),
            "asked": self.asked.to_dict(),
            "choices": {name: dataclasses.asdict(choice) for name, choice in self.choices.items()},
            "frozen": sorted(self.frozen),
            "ratios": dict(self._ratios),
            "masks": self.masks(),
            "generator": self._generator.get_state(),
            "weights": self.weights.state_dict(),
            "criteria": {kind: criterion.state_dict() for kind, criterion in self._criteria.items()},
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue exactly where `state_dict()` was taken, also with the granularities that were chosen then.

        Raises ValueError, before anything is changed, if it belongs to another recipe, model or input size.
        """
        if state.get("version") != VERSION:
            raise ValueError(
                f"the sparsifier's state has version {state.get('version')!r}, this one reads {VERSION}; "
                "continue with the version of semisparse that wrote it"
            )
        recipe, asked = Recipe(state["recipe"]), Recipe(state.get("asked", state["recipe"]))
        if self.recipe != recipe and self.asked != asked:
            raise ValueError(
                "the sparsifier's state belongs to another recipe; construct it with the recipe that "
                "the run began with"
            )
        if state["total_steps"] != self.total_steps:
            raise ValueError(
                f"the sparsifier's state belongs to a training of {state['total_steps']} steps, this one has "
                f"{self.total_steps}; give the same total_steps, or start a new run"
            )
        sizes = {name: tuple(mask.shape) for name, mask in state["masks"].items()}
        layers = recipe.resolve(self.model)
        masked = [name for name, layer in layers.items() if layer.columns.ratio > 0]
        own = {name: self._output_sizes[name] for name in masked}
        if sizes != own:
            different = next(n for n in {**sizes, **own} if sizes.get(n) != own.get(n))
            raise ValueError(
                f"the sparsifier's state has for {different!r} a mask of size {sizes.get(different)}, "
                f"this model {own.get(different)}; use the same model and input size"
            )
        self.weights.check_state_dict(state["weights"])
        self.choices = {name: Choice(**choice) for name, choice in state.get("choices", {}).items()}
        self.asked = asked
        if self.recipe != recipe or self.frozen:
            self.recipe = recipe
            self._arrange_columns()
        self.steps = state["steps"]
        self.weights.load_state_dict(state["weights"])
        self._ratios = dict(state["ratios"])
        self._generator.set_state(state["generator"])
        for name, mask in state["masks"].items():
            set_column_mask(self._modules[name], mask)
        for kind, criterion in self._criteria.items():
            criterion.load_state_dict(state["criteria"][kind])
            self._freeze([name for name in self._named(kind) if name in state["frozen"]], criterion)

    # -- report ---------------------------------------------------------------------------------------------
    def column_ratios(self) -> dict[str, float]:
        """Fraction of the columns that the present mask removes, by layer."""
        return {name: 1 - mask.double().mean().item() for name, mask in self.masks().items()}

    def weight_masks(self) -> dict[str, Tensor]:
        """The present masks of the weights, bool like the weight, on the CPU, of the layers that have one."""
        return self.weights.masks()

    def weight_ratios(self) -> dict[str, float]:
        """Fraction of the weights that the present masks remove, by layer of the recipe with a scheme."""
        masks = self.weights.masks()
        return {n: 1 - masks[n].double().mean().item() if n in masks else 0.0 for n in self.weights.layers}

    def weights_removed(self) -> float:
        """Fraction removed of all weights of the layers to which the recipe gives a scheme; 0 without any."""
        total = sum(layer.weight.numel() for layer in self.weights.layers.values())
        return sum(int((~m).sum()) for m in self.weights.masks().values()) / total if total else 0.0

    def pop_log(self) -> list[dict]:
        """What methods and criteria reported since the last call, e.g. residuals (see `Admm.update`)."""
        logs = [self.weights.log, *(c.log for c in self._criteria.values() if hasattr(c, "log"))]
        rows = [row for log in logs for row in log]
        for log in logs:
            log.clear()
        return rows

    def removed(self) -> float:
        """Fraction removed of all columns of the layers that the recipe makes sparse; 0 if there are none."""
        masks = list(self.masks().values())
        return 1 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks) if masks else 0.0

    def describe(self) -> str:
        """One line a layer and kind of sparsity: what will go, how, and when."""
        if not self.columns and not self.weights.layers and not self.choices:
            return "the recipe makes no layer sparse"
        width = max(map(len, (*self.columns, *self.weights.layers, *self.choices)))
        lines = [f"{name:<{width}}  {layer.describe()}" for name, layer in self.weights.layers.items()]
        for name, c in self.columns.items():
            # Small maps and coarse units cannot meet every ratio: say what will really be removed.
            mask = make_mask(torch.zeros(self.sizes[name]), c.ratio, c.granularity, c.round_to)
            size = "x".join(map(str, mask.shape))
            lines.append(
                f"{name:<{width}}  {size:>9}  {int((~mask).sum()):>6} of {mask.numel():<6} columns removed "
                f"({c.ratio:g} {c.granularity} {c.criterion}, {c.begin:g}..{c.end:g}"
                + (", shared out among layers" if c.scope == "global" else "")
                + (", kept)" if name in self.frozen and not self.steps else ")")
                + (f"  {self.choices[name]}" if name in self.choices else "")
            )
        lines += [
            f"{n:<{width}}  {choice}" for n, choice in self.choices.items() if choice.granularity is None
        ]
        return "\n".join(lines)


def _calls(model: nn.Module, names: Iterable[str], example_input: Tensor) -> dict[str, list[tuple]]:
    """(output size, positions) of every call of the layers `names`; ValueError if the model does not run."""
    try:
        sizes = output_sizes(model, example_input)
    except RuntimeError as error:
        raise ValueError(
            f"the model does not run on an example input of shape {tuple(example_input.shape)}: {error}"
        ) from error
    return {name: sizes.get(model.get_submodule(name), []) for name in names}


def _only_size(name: str, calls: list[tuple]) -> tuple[int, int]:
    """Output height and width; ValueError if the layer is not used, or at several sizes."""
    sizes = {size for size, _ in calls}
    if len(sizes) != 1:
        what = f"is used at the sizes {sorted(sizes)}" if sizes else "is not used in the forward pass"
        raise ValueError(f"{name} {what}, so it cannot have one column mask; add it to _skip")
    return next(iter(sizes))
