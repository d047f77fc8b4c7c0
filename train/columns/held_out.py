"""The criterion `held_out`: candidate masks, compared by their loss on batches that are not trained on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semisparse.masking import column_mask, set_column_mask
from semisparse.recipe import Columns

from .. import distributed
from .coherence import propagate
from .criteria import SaliencyCriterion, Sizes
from .granularity import make_mask

Scores = dict[str, Tensor]


class HeldOut:
    """Batches that are not trained on, and the loss of a model on each of them.

    Args:
        batches: anything; under DistributedDataParallel as many on every rank, each rank its own. They must
            be as mixed as those of training, not of one class each: BatchNorm uses their statistics.
        loss: called with a model and one of the batches, returns the mean loss of its pictures as a scalar.
            Without it, batches are (inputs, class indices), and the loss is cross-entropy.

    Raises:
        ValueError: no batch, or other numbers of them on other ranks.
    """

    def __init__(
        self, batches: Sequence[Any], loss: Callable[[nn.Module, Any], Tensor | float] | None = None
    ):
        self.batches, self.loss = list(batches), loss or _cross_entropy
        count = torch.tensor([len(self.batches), len(self.batches) ** 2], dtype=torch.int64)
        total = distributed.sum_(count.clone())
        if total[0] ** 2 != total[1] * distributed.world_size() or not self.batches:
            raise ValueError(
                f"there are {len(self.batches)} held-out batches on this rank, of {int(total[0])} on "
                f"{distributed.world_size()}; give as many on every rank, at least one"
            )

    def __len__(self) -> int:
        return len(self.batches)

    def losses(self, model: nn.Module, first: int, last: int) -> list[float]:
        """The mean over the ranks of the loss on the batches first to last - 1, in eval mode, but with
        BatchNorm on the statistics of the batch: the running ones are those of the masks trained with so far,
        and would favour them. The model is left as it is."""
        with torch.no_grad(), _batch_statistics(model):
            found = [float(self.loss(model, batch)) for batch in self.batches[first:last]]
        return distributed.mean_(torch.tensor(found, dtype=torch.float64)).tolist()


class HeldOutCriterion:
    """Candidate score maps race each other on held-out batches; the winner makes the masks.

    Candidates are what the accumulated saliency (see `SaliencyCriterion`) says under different beliefs about
    it, maps that know nothing, and the best map so far and mutants of it:

    - `saliency`: each layer by its own;
    - `coherent`: one map for the network, the mean over the layers of their ranks, propagated to each;
    - `both`: a layer's own ranks and the network's, added;
    - `mirrored`: the same for a pixel and its mirror image, as for photographs of things;
    - `smooth`: the mean over 3x3 neighbours, which removes noise;
    - `random0`...: coherent random maps, as of `coherent_random`;
    - `best`, and `mutant0`...: its ranks and those of a coherent random map, added at different weights.

    A race compares masks at the *full* ratio, whatever the schedule says at the time, by successive halving
    (`race`). All see the same batches, so what differs is the masks. There is one at every `EVERY`-th
    selection of masks, and one when they freeze, after which the best map evolves for up to `GENERATIONS`
    more races against its mutants.
    """

    selects_every_step = False
    EVERY = 10  # of about 40 selections, where the recipe does not say `every`
    RANDOM, MUTANTS = 6, 12
    WEIGHTS = (0.2, 0.4, 0.8)  # of the random map in a mutant
    GENERATIONS, PATIENCE = 8, 2  # evolution ends early when the best map stays the best so often

    def __init__(
        self,
        model: nn.Module,
        modules: dict[str, nn.Conv2d],
        columns: Mapping[str, Columns],
        sizes: Sizes,
        input_size: tuple[int, int],
        held_out: HeldOut | None,
        generator: torch.Generator,
    ):
        if held_out is None:
            raise ValueError(
                "criterion 'held_out' compares masks on batches that are not trained on, and there are none: "
                "give Sparsifier(..., held_out=HeldOut(batches, loss)), or choose criterion saliency"
            )
        self.model, self.modules, self.columns, self.sizes = model, modules, columns, sizes
        self.input_size, self.held_out, self.generator = input_size, held_out, generator
        self.saliency = SaliencyCriterion(modules, sizes)
        self.best: Scores = {}
        self.selections = 0
        self.open = [*modules]  # layers that are not frozen
        self.log: list[dict] = []

    def observe(self, loss: float | None, masked: bool) -> None:
        self.saliency.observe(loss, masked)

    def scores(self, names: list[str], final: bool) -> Scores:
        average = self.saliency.scores(self.open, final)
        if final or self.selections % self.EVERY == 0:
            with self._masks_restored():
                self._race(self._learned(average) | self._random() | self._evolved(), final)
                if final:
                    self._evolve()
        self.selections += 1
        return {name: self.best[name] for name in names}

    def _evolve(self) -> None:
        stayed = 0
        for _ in range(self.GENERATIONS):
            stayed = stayed + 1 if self._race(self._evolved(), True) == "best" else 0
            if stayed == self.PATIENCE:
                break

    def _race(self, candidates: dict[str, Scores], final: bool) -> str:
        """Let the candidates race; the winner becomes the best map. Returns its name."""
        winner, losses = race(candidates, self._losses, len(self.held_out))
        self.best = {name: ranks(map_) for name, map_ in candidates[winner].items()}
        means = {key: sum(values) / len(values) for key, values in losses.items()}
        self.log.append({"criterion": "held_out", "final": final, "winner": winner, "loss": means})
        return winner

    def _losses(self, scores: Scores, first: int, last: int) -> list[float]:
        for name, map_ in scores.items():
            c = self.columns[name]
            set_column_mask(self.modules[name], make_mask(map_, c.ratio, c.granularity, c.round_to))
        return self.held_out.losses(self.model, first, last)

    @contextlib.contextmanager
    def _masks_restored(self) -> Iterator[None]:
        before = {name: column_mask(module).clone() for name, module in self.modules.items()}
        try:
            yield
        finally:
            for name, mask in before.items():
                set_column_mask(self.modules[name], mask)

    def _learned(self, average: Scores) -> dict[str, Scores]:
        own = {name: ranks(map_) for name, map_ in average.items()}
        network = _network_map(own.values(), self.input_size)
        shared = {name: ranks(propagate(network, self.sizes[name])) for name in own}
        return {
            "saliency": average,
            "coherent": shared,
            "both": {name: own[name] + shared[name] for name in own},
            "mirrored": {name: own[name] + own[name].flip(-1) for name in own},
            "smooth": {name: smooth(average[name]) for name in own},
        }

    def _random(self) -> dict[str, Scores]:
        return {f"random{i}": self._draw() for i in range(self.RANDOM)}

    def _evolved(self) -> dict[str, Scores]:
        if not self.best:
            return {}
        best = {name: self.best[name] for name in self.open}
        found = {"best": best}
        for i in range(self.MUTANTS):
            weight, drawn = self.WEIGHTS[i % len(self.WEIGHTS)], self._draw()
            found[f"mutant{i}"] = {name: best[name] + weight * drawn[name] for name in best}
        return found

    def _draw(self) -> Scores:
        """The ranks of a coherent random map."""
        map_ = torch.rand(self.input_size, generator=self.generator)
        return {name: ranks(propagate(map_, self.sizes[name])) for name in self.open}

    def freeze(self, names: list[str]) -> None:
        self.saliency.freeze(names)
        self.open = [name for name in self.open if name not in names]
        if not self.open:
            self.held_out = None  # its batches are not needed any more

    def state_dict(self) -> dict:
        return {
            "saliency": self.saliency.state_dict(),
            "best": dict(self.best),
            "selections": self.selections,
        }

    def load_state_dict(self, state: dict) -> None:
        self.saliency.load_state_dict(state["saliency"])
        self.best, self.selections = dict(state["best"]), state["selections"]


def race(
    candidates: Mapping[str, Any], losses: Callable[[Any, int, int], list[float]], batches: int
) -> tuple[str, dict[str, list[float]]]:
    """Successive halving (Jamieson & Talwalkar, AISTATS 2016): every candidate is tried on a few batches, the
    better half of them on twice as many, and so on; the last two are on all.

    Args:
        losses: of a candidate, on the batches first to last - 1.
        batches: how many there are.

    Returns:
        The winner, and the losses of each candidate on the batches that it was tried on.
    """
    found: dict[str, list[float]] = {key: [] for key in candidates}
    left = list(candidates)
    rounds = max(math.ceil(math.log2(len(left))), 1)
    for round_ in range(rounds):
        upto = max(batches >> (rounds - 1 - round_), 1)
        for key in left:
            if len(found[key]) < upto:
                found[key] += losses(candidates[key], len(found[key]), upto)
        left.sort(key=lambda key: sum(found[key]))  # stable: ranks agree where losses are equal
        left = left[: -(-len(left) // 2)]
    return left[0], found


def ranks(scores: Tensor) -> Tensor:
    """The rank of each score in its map, from 0 to below 1: maps of different layers become comparable."""
    order = scores.flatten().argsort(stable=True)
    result = torch.empty_like(order)
    result[order] = torch.arange(len(order))
    return (result.double() / len(order)).view(scores.shape)


def smooth(scores: Tensor) -> Tensor:
    """The mean over each pixel's 3x3 neighbours inside the map."""
    return F.avg_pool2d(scores[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]


def _network_map(maps, size: tuple[int, int]) -> Tensor:
    stretched = [F.interpolate(m[None, None], size, mode="bilinear", align_corners=False)[0, 0] for m in maps]
    return torch.stack(stretched).mean(0)


@contextlib.contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    model.eval()
    for norm in norms:  # so that they neither use nor change what they keep
        norm.train()
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for module, mode in training:
            module.training = mode


def _cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = batch
    return F.cross_entropy(model(inputs).float(), labels)
