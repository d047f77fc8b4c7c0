"""Data sets too large for memory (ImageNet): pictures are decoded by worker processes as they are needed."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .augment import center_crop, normalize
from .memory import resize_center, split
from .sources import FileSource


class StreamingLoader:
    """The interface and guarantees of `memory.MemoryLoader`, decoding with `workers` processes.

    The random crop is cut from the picture at its full resolution.
    """

    def __init__(
        self,
        source: FileSource,
        split: str,
        *,
        size: int,
        side: int,
        batch_size: int,
        augmentation: str | None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 4,
        device: torch.device | str = "cpu",
    ):
        self.dataset = _Pictures(source, getattr(source, split), size, side, augmentation)
        self.size, self.batch_size, self.augmentation = size, batch_size, augmentation
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.workers, self.device = workers, torch.device(device)
        self.epoch = 0
        self.used = torch.arange(len(self.dataset))  # indices of the pictures that batches are made of

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def hold_out(self, count: int) -> StreamingLoader:
        """As `MemoryLoader.hold_out`."""
        held, self.used = split(self.used, count, self.seed, self.batch_size * self.world_size)
        other = copy.copy(self)
        other.dataset = copy.copy(self.dataset)
        other.augmentation = other.dataset.augmentation = None
        other.used = held
        return other

    def __len__(self) -> int:
        if self.augmentation is None:
            mine = len(range(self.rank, len(self.used), self.world_size))
            return -(-mine // self.batch_size)
        return max(len(self.used) // self.world_size // self.batch_size, 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch_seed = self.seed * 1_000_003 + self.epoch
        if self.augmentation is None:
            order = self.used[self.rank :: self.world_size].tolist()
        else:
            shuffle = torch.Generator().manual_seed(epoch_seed)
            order = self.used[torch.randperm(len(self.used), generator=shuffle)].tolist()
            order = order[self.rank :: self.world_size][: len(self) * self.batch_size]
        # Each picture's own seed travels with its index, so its crop does not depend on which worker decodes.
        batches = [
            [(i, epoch_seed * 4099 + i) for i in order[start : start + self.batch_size]]
            for start in range(0, len(order), self.batch_size)
        ]
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        for images, labels in loader:
            yield (
                normalize(images.to(self.device, non_blocking=True)),
                labels.to(self.device, non_blocking=True),
            )


class _Pictures(Dataset):
    def __init__(
        self,
        source: FileSource,
        entries: list[tuple[str, int]],
        size: int,
        side: int,
        augmentation: str | None,
    ):
        self.source, self.entries, self.size, self.side = source, entries, size, side
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = item
        member, label = self.entries[index]
        picture = self.source.picture(member)
        if self.augmentation == "resized-crop":
            pixels = _random_resized(picture, self.size, random.Random(seed))
        else:
            pixels = resize_center(picture, self.side)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        if self.augmentation == "flip" and random.Random(seed).random() < 0.5:
            image = image.flip(-1)
        return center_crop(image, self.size).contiguous(), label


def _random_resized(picture, size: int, rng: random.Random) -> np.ndarray:
    from PIL import Image

    area = rng.uniform(0.08, 1.0)  # torchvision's default range: pictures this large bear it
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    pixels = area * picture.width * picture.height
    width = min(math.sqrt(pixels * aspect), picture.width)
    height = min(math.sqrt(pixels / aspect), picture.height)
    left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
    crop = picture.resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    pixels = np.asarray(crop)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
