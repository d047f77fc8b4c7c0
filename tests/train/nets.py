"""Small networks and data for the tests of training."""

import torch
from torch import nn


class SmallNet(nn.Module):
    """Three spatial convolutions with BatchNorm, one of them strided and biased, and a 1x1."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.a = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.point = nn.Conv2d(12, 12, 1)
        self.fc = nn.Linear(12, classes)

    def forward(self, x):
        return self.fc(self.point(self.b(self.a(self.stem(x)))).mean((2, 3)))


def quadrants(
    count: int, seed: int = 0, size: tuple[int, int] = (12, 14)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise pictures; the class is the left or right half in which channel 0 or 1 is bright. Borders say
    nothing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, *size, generator=generator) * 0.3
    y = torch.randint(0, 4, (count,), generator=generator)
    half = size[1] // 2
    for image, label in zip(x, y.tolist(), strict=True):
        left = (label % 2) * (half - 2) + 2
        image[label // 2, 3:-3, left : left + half - 2] += 1.5
    return x, y
