"""Data sets that fit in memory: decoded once to a uint8 tensor, cached on disk, augmented in batches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semisparse._files import replace_atomically

from .augment import augment, center_crop, normalize
from .sources import ArraySource, FileSource


class MemoryLoader:
    """Batches (images float32 (N, 3, size, size) normalised, labels int64 (N,)) from a uint8 tensor.

    The order and the augmentation of an epoch depend on `seed`, the epoch and the rank alone, so a resumed
    run sees what the uninterrupted one would have seen. Training drops the last, incomplete batch (unless it
    is the only one); validation visits every picture once, on exactly one rank.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        size: int,
        batch_size: int,
        augmentation: str | None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ):
        self.images, self.labels = images, labels
        self.size, self.batch_size, self.augmentation = size, batch_size, augmentation
        self.seed, self.rank, self.world_size, self.device = seed, rank, world_size, torch.device(device)
        self.epoch = 0
        self.used = torch.arange(len(images))  # indices of the pictures that batches are made of

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def hold_out(self, count: int) -> MemoryLoader:
        """Take `count` pictures out of the batches for good: which ones depends on `seed` alone. Returns a
        loader of them, cropped as for validation. Raises ValueError if too few would be left."""
        held, self.used = split(self.used, count, self.seed, self.batch_size * self.world_size)
        return MemoryLoader(
            self.images[held],
            self.labels[held],
            size=self.size,
            batch_size=self.batch_size,
            augmentation=None,
            rank=self.rank,
            world_size=self.world_size,
            device=self.device,
        )

    def __len__(self) -> int:
        if self.augmentation is None:
            mine = len(range(self.rank, len(self.used), self.world_size))
            return -(-mine // self.batch_size)
        return max(len(self.used) // self.world_size // self.batch_size, 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.augmentation is None:
            order = self.used[self.rank :: self.world_size]
        else:
            # One permutation for all ranks, so that the ranks' shares are disjoint.
            shuffle = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = self.used[torch.randperm(len(self.used), generator=shuffle)]
            order = order[self.rank :: self.world_size]
            noise = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) * 4099 + 1 + self.rank)
        for step in range(len(self)):
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            images = self.images[index].to(self.device, non_blocking=True)
            if self.augmentation is None:
                images = center_crop(images, self.size)
            else:
                images = augment(images, self.size, self.augmentation, noise)
            yield normalize(images), self.labels[index].to(self.device, non_blocking=True)


def split(pictures: Tensor, count: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """`count` of the indices `pictures`, chosen by `seed` and in random order, for batches should not be of
    one class; and the others in their own order.

    Raises ValueError if the others are fewer than `step`, one step of training.
    """
    if not 0 < count <= len(pictures) - step:
        raise ValueError(
            f"{count} of {len(pictures)} training pictures are to be held out, but a step of training needs "
            f"{step} of them; hold out fewer, or train with smaller batches"
        )
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    return pictures[order[:count]], pictures[order[count:].sort().values]


def decode(
    source: ArraySource | FileSource,
    split: str,
    side: int,
    *,
    workers: int = 4,
    cache: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Pictures of one split as uint8 (N, 3, side, side), and labels int64 (N,).

    The shorter side is resized to `side` and the centre is kept. Files are decoded by `workers` threads; with
    `cache`, the result is kept there under a name that depends on the files, their sizes and `side`.
    """
    if isinstance(source, ArraySource):
        pictures, labels = getattr(source, split)
        images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
        if images.shape[-2:] != (side, side):
            resized = torch.nn.functional.interpolate(
                images.float(), (side, side), mode="bilinear", antialias=True
            )
            images = resized.round_().clamp_(0, 255).to(torch.uint8)
        return images.contiguous(), torch.from_numpy(labels)
    entries = getattr(source, split)
    labels = torch.tensor([label for _, label in entries])
    path = cache / f"{source.name}-{split}-{side}-{_fingerprint(source, entries)}.npy" if cache else None
    if path and path.exists():
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False)), labels
        except (ValueError, OSError):  # truncated or foreign: decode again and replace it
            pass
    images = np.empty((len(entries), 3, side, side), np.uint8)

    def one(i: int) -> None:
        images[i] = resize_center(source.picture(entries[i][0]), side).transpose(2, 0, 1)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for done, _ in enumerate(pool.map(one, range(len(entries))), 1):
            if progress and (done % 100 == 0 or done == len(entries)):
                progress(done / len(entries))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(path) as file:
            np.save(file, images, allow_pickle=False)
    return torch.from_numpy(images), labels


def resize_center(picture, side: int) -> np.ndarray:
    """uint8 (side, side, 3): the shorter side of a PIL picture resized to `side`, the centre kept."""
    from PIL import Image

    scale = side / min(picture.size)
    width, height = (max(side, round(length * scale)) for length in picture.size)
    left, top = (width - side) / 2 / scale, (height - side) / 2 / scale
    box = (left, top, min(left + side / scale, picture.width), min(top + side / scale, picture.height))
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, box=box))


def _fingerprint(source: FileSource, entries: list[tuple[str, int]]) -> str:
    digest = hashlib.sha256()
    root = source.root.resolve()
    status = root.stat()
    digest.update(f"{root}|{status.st_size}|{status.st_mtime_ns}".encode())
    for member, _ in entries:
        digest.update(member.encode())
        if not source.zipped:
            status = os.stat(root / member)
            digest.update(f"|{status.st_size}|{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
