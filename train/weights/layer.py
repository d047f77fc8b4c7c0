"""One layer whose weights become sparse."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor, nn

from semisparse.recipe import LayerRecipe

from . import connectivity
from .boxes import Boxes
from .registry import SCHEMES
from .scheme import PLAIN, Context, Scheme


@dataclass
class Layer:
    """A module, its settings and what has been decided about it so far.

    Attributes:
        positions: how often each weight is used per image, such as the output pixels of a convolution.
        ratio: fraction removed in the end, where it is not the recipe's for this layer alone (`allocate`).
        context: library and filter order, chosen from the weights when training of the layer begins.
        mask: bool like the weight, True = kept; None while nothing is removed.
        begun: `context` is set.
        frozen: `mask` is final.
    """

    name: str
    module: nn.Module
    settings: LayerRecipe
    positions: int = 1
    ratio: float | None = None
    context: Context = PLAIN
    mask: Tensor | None = None
    begun: bool = False
    frozen: bool = False

    def __post_init__(self) -> None:
        self.context = dataclasses.replace(self.context, groups=getattr(self.module, "groups", 1))

    @property
    def weight(self) -> nn.Parameter:
        return self.module.weight

    @property
    def scheme(self) -> Scheme | None:
        """None for `dense`: all that goes is kernels (`connectivity`)."""
        return SCHEMES.get(self.settings.scheme)

    def describe(self) -> str:
        """Shape, scheme, fraction removed, sharing, method and schedule, in one line."""
        s = self.settings
        removed = 0.0 if self.scheme is None else self.scheme.final_ratio(self.weight, s)
        what = [f"{s.scheme} {removed:.3g}" if removed else s.scheme] if self.scheme is not None else []
        if self.scheme is not None and (s.scope == "global" or s.method == "reweighted"):
            what.append("shared out among layers" if removed else "as much as fades out")
        if s.connectivity > 0:
            what.append(f"kernels {s.connectivity:.3g}")
        if s.group > 1:
            what.append(f"shared by {s.group} filters")
        shape = "x".join(map(str, self.weight.shape))
        return f"{shape:>13}  {', '.join(what)} removed ({s.method}, {s.begin:g}..{s.end:g})"

    def structure(self, weight: Tensor, amount: float = 1.0) -> Tensor:
        """The scheme's mask for `weight`, at `amount` (0 to 1) of the final ratio; without connectivity."""
        if self.scheme is None:
            return weight.new_ones(weight.shape, dtype=bool)
        final = self.scheme.final_ratio(weight, self.settings) if self.ratio is None else self.ratio
        return self.scheme.mask(weight, self.settings, amount * final, self.context)

    def cuts(self) -> tuple[Boxes, ...]:
        """The cuts of the weight into what stays or goes together; for schemes that have some."""
        return self.scheme.cuts(self.weight, self.settings, self.context)

    def kernels(self, weight: Tensor, amount: float = 1.0) -> Tensor:
        """Connectivity's mask for `weight`, at `amount` of the final ratio."""
        return connectivity.mask(weight, self.settings, amount * self.settings.connectivity, self.context)

    def project(self, weight: Tensor, amount: float = 1.0) -> Tensor:
        """Both together. For patterns this is the nearest weight that has both structures: a kernel's worth
        is what its pattern keeps of it."""
        mask = self.structure(weight, amount)
        if self.settings.connectivity > 0:
            mask = mask & self.kernels(weight * mask, amount)
        return mask
