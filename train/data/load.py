"""From one `--data` value to loaders."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .augment import AUGMENTATIONS
from .memory import MemoryLoader, decode
from .sources import ArraySource, cache_directory, open_source
from .streaming import StreamingLoader

# Pictures kept in memory are stored a little larger than the network's input, as 256 is to 224 on ImageNet.
MARGIN = 0.875


@dataclass
class ClassificationData:
    """The loaders yield (images float32 (N, 3, size, size), labels int64 (N,)) on the chosen device."""

    name: str
    classes: list[str]
    size: int
    train: MemoryLoader | StreamingLoader
    val: MemoryLoader | StreamingLoader


def load_data(
    data: str = "digits",
    *,
    size: int | None = None,
    batch_size: int = 64,
    val_batch_size: int | None = None,
    augmentation: str | None = None,
    seed: int = 0,
    workers: int = 4,
    download: bool = False,
    data_dir: str | os.PathLike | None = None,
    memory_limit: float = 4e9,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    cache: bool = True,
    progress: Callable[[str, float], None] | None = None,
) -> ClassificationData:
    """Loaders for `data`: `digits`, `cifar10`, `imagenette`, a zip or a directory in ImageFolder layout.

    `size` is the side of the network's square input in pixels (default 224; 64 for digits and CIFAR-10).
    Pictures are decoded once and held in memory where they take at most `memory_limit` bytes; larger sets
    are streamed from disk. `augmentation` is one of `augment.AUGMENTATIONS`; None chooses by data set.
    `progress(what, fraction)` is called while decoding. Raises ValueError for a path that holds no data.
    """
    if augmentation is not None and augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation {augmentation!r} is unknown; choose one of {', '.join(AUGMENTATIONS)}"
        )
    if size is not None and size < 8:
        raise ValueError(f"size {size} is too small for a picture; give at least 8 pixels")
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} must be at least 1")
    source = open_source(data, download=download, data_dir=data_dir)
    arrays = isinstance(source, ArraySource)
    size = size or (64 if arrays else 224)
    if augmentation is None:
        augmentation = {"digits": "shift", "cifar10": "pad-crop"}.get(source.name, "resized-crop")
    side = size if arrays else round(size / MARGIN)
    common = {"size": size, "seed": seed, "rank": rank, "world_size": world_size, "device": device}
    plan = {"train": (batch_size, augmentation), "val": (val_batch_size or batch_size, None)}
    count = sum(len(getattr(source, split)[1] if arrays else getattr(source, split)) for split in plan)
    if not arrays and count * 3 * side * side > memory_limit:
        if augmentation in ("pad-crop", "shift"):
            raise ValueError(
                f"augmentation {augmentation!r} is for small sets held in memory; "
                "use resized-crop, flip or none here, or raise the memory limit"
            )
        loaders = {
            split: StreamingLoader(
                source, split, side=side, batch_size=batch, augmentation=kind, workers=workers, **common
            )
            for split, (batch, kind) in plan.items()
        }
    else:
        folder: Path | None = cache_directory() / "decoded" if cache else None
        loaders = {}
        for split, (batch, kind) in plan.items():
            images, labels = decode(
                source,
                split,
                side,
                workers=workers,
                cache=folder,
                progress=None
                if progress is None
                else (lambda f, split=split: progress(f"decoding {split}", f)),
            )
            loaders[split] = MemoryLoader(images, labels, batch_size=batch, augmentation=kind, **common)
    return ClassificationData(source.name, source.classes, size, loaders["train"], loaders["val"])
