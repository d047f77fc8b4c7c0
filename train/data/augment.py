"""Augmentation of whole uint8 batches with tensor operations: no per-picture Python, any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# The usual ImageNet statistics, in units of the 0..255 range the pictures come in.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
AUGMENTATIONS = ("resized-crop", "pad-crop", "shift", "flip", "none")


def normalize(images: Tensor) -> Tensor:
    """uint8 or float (N, 3, H, W) in 0..255 -> float32, zero mean and unit variance, channels_last."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def center_crop(images: Tensor, size: int) -> Tensor:
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def augment(images: Tensor, size: int, kind: str, generator: torch.Generator) -> Tensor:
    """A training batch (N, 3, size, size) in 0..255 from stored pictures (N, 3, H, W), uint8.

    `resized-crop`: a random 35-100% of the area at a random aspect ratio, resized, and a random mirror
    (the ImageNet recipe); `pad-crop`: a random crop out of the picture padded by an eighth, and a random
    mirror (the CIFAR recipe); `shift`: the same without mirror, for digits; `flip`; `none`.
    """
    n, device = len(images), images.device
    if kind == "resized-crop":
        return _resized_crop(images, size, generator)
    if kind in ("flip", "none"):
        out = center_crop(images, size)
    else:
        pad = max(size // 8, 1)
        padded = F.pad(center_crop(images, size).float(), [pad] * 4, mode="replicate")
        top, left = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(device)
        span = torch.arange(size, device=device)
        rows = (top[:, None] + span)[:, None, :, None]
        columns = (left[:, None] + span)[:, None, None, :]
        out = padded[
            torch.arange(n, device=device)[:, None, None, None],
            torch.arange(images.shape[1], device=device)[None, :, None, None],
            rows,
            columns,
        ]
    if kind in ("flip", "pad-crop"):
        mirror = (torch.rand(n, generator=generator) < 0.5).to(device)
        out = torch.where(mirror[:, None, None, None], out.flip(-1), out)
    return out


def _resized_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    n = len(images)
    area = torch.empty(n).uniform_(0.35, 1.0, generator=generator)
    aspect = torch.exp(torch.empty(n).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator))
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    x, y = torch.rand(2, n, generator=generator)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)  # in grid_sample's coordinates: the picture spans -1..1
    theta[:, 0, 0], theta[:, 0, 2] = width * mirror, (1 - width) * (2 * x - 1)
    theta[:, 1, 1], theta[:, 1, 2] = height, (1 - height) * (2 * y - 1)
    grid = F.affine_grid(theta.to(images.device), (n, 3, size, size), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
