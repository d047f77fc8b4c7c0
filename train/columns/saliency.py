"""Recording what each output pixel of a convolution is worth to the loss, while training runs.

The mask entry m[p] multiplies all channels of output pixel p, so for one picture
``dL/dm[p] = sum_c z[c, p] * dL/dy[c, p]`` with z the convolution's output before the mask and y after it.
Both factors exist for removed pixels too: a removed column is re-assessed on every batch and can come back
(unless a ReLU follows without BatchNorm or bias in between: its gradient at 0 is 0, and removal is final).
The mean of the squares over pictures is the diagonal of the Fisher information in m, so it estimates (up to a
factor) how much the loss rises when the column goes: Theis et al. 2018 derive this for channels; for
perforated convolutions Figurnov et al. 2016 use the first-order magnitude. Channels are summed within a
picture *before* squaring, because a column goes or stays as a whole.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


class SaliencyRecorder:
    """Accumulates the saliency of one convolution's columns over training batches, on the model's device.

    Construct it after the column mask is attached: it must see the output before and after the mask. Copies
    and pickles of the model do not record.
    """

    def __init__(self, module: nn.Conv2d, size: tuple[int, int]):
        self.total = torch.zeros(size, dtype=torch.float32, device=module.weight.device)
        self.pictures = 0
        self._raw: Tensor | None = None
        self._handles = [
            module.register_forward_hook(_KeepOutput(self), prepend=True),
            module.register_forward_hook(_WatchGradient(self)),
        ]

    def take(self) -> tuple[Tensor, int]:
        """Sum (OH, OW), float64 on the CPU, and number of pictures since the last call."""
        total, pictures = self.total.double().cpu(), self.pictures
        self.total.zero_()
        self.pictures = 0
        return total, pictures

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._raw = None

    def _accumulate(self, raw: Tensor, gradient: Tensor) -> None:
        # The loss is a mean over the batch; times its size is the gradient of each picture's own loss.
        per_picture = (raw * gradient).sum(1, dtype=torch.float32) * len(raw)
        finite = torch.isfinite(per_picture).all()  # float16 overflows in batches that GradScaler skips
        self.total += torch.where(finite, per_picture.square().sum(0), torch.zeros_like(self.total))
        self.pictures += len(raw)


class _Hook:
    def __init__(self, recorder: SaliencyRecorder):
        self.recorder = recorder

    def __reduce__(self):
        return _ignore_hook, ()


class _KeepOutput(_Hook):
    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.recorder._raw = output.detach() if module.training and output.requires_grad else None


class _WatchGradient(_Hook):
    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        raw, self.recorder._raw = self.recorder._raw, None
        if raw is not None:
            output.register_hook(functools.partial(self.recorder._accumulate, raw))


def _ignore(module: nn.Module, args: tuple, output: Tensor) -> None:
    """What the hooks above become in a copy or pickle of the model."""


def _ignore_hook():
    return _ignore
