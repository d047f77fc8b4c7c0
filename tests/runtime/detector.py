"""Networks with what detectors have: split and concatenated channels, pyramids, distribution-focal boxes."""

from __future__ import annotations

import torch
from torch import nn


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


class SplitAndJoin(nn.Module):
    """Half of the channels go through bottlenecks, and every stage is kept (YOLOv8's C2f)."""

    def __init__(self, channels: int, depth: int, shortcut: bool):
        super().__init__()
        self.half, self.shortcut = channels // 2, shortcut
        self.enter = block(channels, channels, 1)
        self.stages = nn.ModuleList(block(self.half, self.half) for _ in range(depth))
        self.leave = block(self.half * (2 + depth), channels, 1)

    def forward(self, x):
        parts = list(self.enter(x).chunk(2, 1))
        for stage in self.stages:
            y = stage(parts[-1])
            parts.append(parts[-1] + y if self.shortcut else y)
        return self.leave(torch.cat(parts, 1))


class Detector(nn.Module):
    """A pyramid of two levels and a head that decodes boxes, after YOLOv8, much smaller."""

    def __init__(self, channels: int = 8, classes: int = 3, bins: int = 4):
        super().__init__()
        self.bins, self.classes = bins, classes
        self.stem = block(3, channels, 3, 2)
        self.fine = nn.Sequential(block(channels, channels, 3, 2), SplitAndJoin(channels, 2, True))
        self.coarse = nn.Sequential(block(channels, 2 * channels, 3, 2), SplitAndJoin(2 * channels, 1, False))
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.after_pool = block(8 * channels, 2 * channels, 1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = SplitAndJoin(3 * channels - channels, 1, False)
        self.narrow = block(3 * channels, 2 * channels, 1)
        self.heads = nn.ModuleList(nn.Conv2d(2 * channels, 4 * bins + classes, 1) for _ in range(2))
        self.expectation = nn.Conv2d(bins, 1, 1, bias=False)
        self.expectation.weight.data[:] = torch.arange(bins, dtype=torch.float32).view(1, bins, 1, 1)

    def forward(self, x):
        fine = self.fine(self.stem(x))
        coarse = self.coarse(fine)
        pooled = [coarse]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        coarse = self.after_pool(torch.cat(pooled, 1))
        fine = self.merge(self.narrow(torch.cat([self.up(coarse), fine], 1)))
        levels = [head(y).flatten(2) for head, y in zip(self.heads, (fine, coarse), strict=True)]
        boxes, scores = torch.cat(levels, 2).split((4 * self.bins, self.classes), 1)
        n, _, anchors = boxes.shape
        boxes = boxes.view(n, 4, self.bins, anchors).transpose(2, 1).softmax(1)
        low, high = self.expectation(boxes).view(n, 4, anchors).chunk(2, 1)
        grid = torch.arange(anchors, dtype=torch.float32)
        corners = (grid - low, grid + high)
        return torch.cat([(corners[0] + corners[1]) / 2, corners[1] - corners[0], scores.sigmoid()], 1)
