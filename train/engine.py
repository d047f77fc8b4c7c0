"""One epoch of training, one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import distributed


@dataclass
class Accuracy:
    """Top-1 and top-5 in percent, mean cross-entropy, pictures counted."""

    top1: float
    top5: float
    loss: float
    count: int

    def __str__(self) -> str:
        return (
            f"top-1 {self.top1:.2f}%  top-5 {self.top5:.2f}%  loss {self.loss:.4f}  ({self.count} pictures)"
        )


class Precision:
    """Mixed precision: bfloat16 autocast where the device has it, else float16 with loss scaling."""

    def __init__(self, device: torch.device, enabled: bool):
        self.device, self.enabled = device, enabled
        half = device.type == "cuda" and not torch.cuda.is_bf16_supported()
        self.dtype = torch.float16 if half else torch.bfloat16
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled and half)

    def autocast(self):
        return torch.autocast(self.device.type, self.dtype, enabled=self.enabled)


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    precision: Precision,
    lr_scheduler=None,
    clip_grad_norm: float | None = None,
    sparsifier=None,
    average=None,
    distillation=None,
    advance: Callable | None = None,
) -> dict[str, float]:
    """Train on every batch once; returns the mean loss and the top-1 in percent on the (augmented) batches.

    Raises RuntimeError if the loss is not finite.
    """
    model.train()
    total = torch.zeros(3, dtype=torch.float64)
    plain = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    for images, labels in batches:
        with precision.autocast():
            output = model(images)
            loss = criterion(output, labels)
            if distillation is not None:
                loss = loss + distillation(output, images)
        value = loss.detach().item()  # of the task: a penalty says nothing about this batch
        if sparsifier is not None:
            loss = loss + sparsifier.penalty()
        if not math.isfinite(value) or not torch.isfinite(loss.detach()):
            raise RuntimeError(
                f"the training loss became {loss.item()}; lower --lr (or the recipe's rho), add "
                "--lr-warmup-epochs or --clip-grad-norm"
            )
        optimizer.zero_grad(set_to_none=True)
        precision.scaler.scale(loss).backward()
        if clip_grad_norm is not None:
            precision.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(plain.parameters(), clip_grad_norm)
        precision.scaler.step(optimizer)
        precision.scaler.update()
        if lr_scheduler is not None:
            lr_scheduler.step()
        if sparsifier is not None:
            sparsifier.step(value)
        if average is not None:
            average.update(plain)
        correct = (output.detach().argmax(1) == labels).sum().item()
        total += torch.tensor([value * len(labels), correct, len(labels)], dtype=torch.float64)
        if advance is not None:
            advance(f"loss {total[0] / total[2]:.3f}  top-1 {100 * total[1] / total[2]:.1f}%")
    distributed.sum_(total)
    return {"loss": (total[0] / total[2]).item(), "top1": (100 * total[1] / total[2]).item()}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    precision: Precision | None = None,
    advance: Callable | None = None,
) -> Accuracy:
    """Accuracy of `model` in eval mode (its mode is restored). All ranks get the figures of the whole set."""
    was_training = model.training
    model.eval()
    total = torch.zeros(4, dtype=torch.float64)
    for images, labels in batches:
        with precision.autocast() if precision else torch.autocast(images.device.type, enabled=False):
            output = model(images)
        output = output.float()
        ranked = output.topk(min(5, output.shape[1]), dim=1).indices == labels[:, None]
        total += torch.tensor(
            [
                ranked[:, 0].sum().item(),
                ranked.any(1).sum().item(),
                F.cross_entropy(output, labels, reduction="sum").item(),
                len(labels),
            ],
            dtype=torch.float64,
        )
        if advance is not None:
            advance()
    model.train(was_training)
    distributed.sum_(total)
    top1, top5, loss, count = total.tolist()
    if not count:
        raise ValueError("there are no validation pictures to evaluate on")
    return Accuracy(100 * top1 / count, 100 * top5 / count, loss / count, int(count))
