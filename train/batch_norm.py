"""Re-estimating BatchNorm statistics, which pruning shifts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from . import distributed


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], count: int) -> None:
    """Replace the running statistics of every BatchNorm of `model` by plain averages over `count` batches.

    The weights stay. Modes and momenta are restored. In a distributed run, every rank gets the ranks' mean.
    Raises ValueError if there is no batch.
    """

    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    if not norms:
        return
    training = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    seen = 0
    model.eval()  # dropout and the like stay off
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for seen, (images, _) in enumerate(batches, 1):
            model(images)
            if seen == count:
                break
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in training.items():
            module.training = mode
    if not seen:
        raise ValueError("there are no batches to re-estimate BatchNorm statistics on")
    for norm in norms:
        distributed.mean_(norm.running_mean)
        distributed.mean_(norm.running_var)
