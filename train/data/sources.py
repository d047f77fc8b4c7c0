"""Where pictures come from: a zip or a directory in ImageFolder layout, or arrays held in memory.

ImageFolder layout: `<split>/<class>/<picture>`, with the splits called `train` and `val` (or `valid`,
`validation`, `test`), optionally below one common folder.
"""

from __future__ import annotations

import io
import os
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "test")
LAYOUT = "train/<class>/<picture> and val/<class>/<picture>"


@dataclass
class ArraySource:
    """Pictures held as one uint8 array (N, H, W, 3) per split, with int64 labels (N,)."""

    name: str
    classes: list[str]
    train: tuple[np.ndarray, np.ndarray]
    val: tuple[np.ndarray, np.ndarray]


@dataclass
class FileSource:
    """Pictures in files, or in the members of one zip: `train` and `val` list (member, label)."""

    name: str
    root: Path
    classes: list[str]
    train: list[tuple[str, int]]
    val: list[tuple[str, int]]
    zipped: bool = False
    _local: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_local"}

    def __setstate__(self, state):
        self.__dict__.update(state, _local=threading.local())

    def read(self, member: str) -> bytes:
        """The bytes of one picture. Safe to call from several threads and from forked workers."""
        if not self.zipped:
            return (self.root / member).read_bytes()
        # A ZipFile seeks in one shared file handle, so every thread of every process opens its own.
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.archive, self._local.pid = zipfile.ZipFile(self.root), os.getpid()
        return self._local.archive.read(member)

    def picture(self, member: str):
        """The decoded picture (PIL, RGB)."""
        from PIL import Image, UnidentifiedImageError

        try:
            return Image.open(io.BytesIO(self.read(member))).convert("RGB")
        # Once imported, Ultralytics' Image.open looks for pi_heif where it cannot identify a picture.
        except (UnidentifiedImageError, OSError, zipfile.BadZipFile, ModuleNotFoundError) as error:
            raise RuntimeError(
                f"cannot decode {member!r} of {self.root}: {error}; replace or remove this picture"
            ) from error


def open_source(data: str, *, download: bool = False, data_dir: str | os.PathLike | None = None):
    """The source that `--data` names: `digits`, `cifar10`, `imagenette`, a zip or an ImageFolder directory.

    `data_dir` is where downloads are kept (default: `semisparse` in the user's cache directory).
    Raises ValueError if there is nothing at the path, or nothing that looks like a data set.
    """
    data_dir = Path(data_dir) if data_dir else cache_directory() / "data"
    path = Path(data).expanduser()
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return _zip(path)
    named = {
        "digits": lambda: _digits(),
        "cifar10": lambda: _cifar10(data_dir, download),
        "imagenette": lambda: _imagenette(data_dir, download),
    }
    if data.lower() in named:
        return named[data.lower()]()
    raise ValueError(
        f"--data {data!r} is neither a file nor a directory nor one of {sorted(named)}; "
        f"give a zip or a directory holding {LAYOUT}"
    )


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/semisparse`, or `~/.cache/semisparse`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semisparse"


def _directory(path: Path) -> FileSource:
    splits = {entry.name.lower(): entry for entry in path.iterdir() if entry.is_dir()}
    if not set(splits) & set(TRAIN_NAMES) and len(splits) == 1:  # one common folder around the splits
        splits = {e.name.lower(): e for e in next(iter(splits.values())).iterdir() if e.is_dir()}
    members = [
        (split, picture.parent.name, str(picture.relative_to(path)))
        for split, folder in splits.items()
        if split in TRAIN_NAMES + VAL_NAMES
        for picture in sorted(folder.glob("*/*"))
        if picture.suffix.lower() in SUFFIXES
    ]
    return _from_members(path, members, zipped=False)


def _zip(path: Path) -> FileSource:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"--data {str(path)!r} is a file but not a zip archive; give a zip or a directory holding "
            f"{LAYOUT}"
        )
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())
    members = []
    for name in names:
        parts = name.split("/")
        if len(parts) >= 3 and name.lower().endswith(SUFFIXES) and not parts[0].startswith("__MACOSX"):
            members.append((parts[-3].lower(), parts[-2], name))
    return _from_members(path, members, zipped=True)


def _from_members(path: Path, members: list[tuple[str, str, str]], zipped: bool) -> FileSource:
    present = {split for split, _, _ in members}
    train = next((s for s in TRAIN_NAMES if s in present), None)
    val = next((s for s in VAL_NAMES if s in present), None)
    if train is None or val is None:
        found = sorted(present)[:8]
        raise ValueError(
            f"--data {str(path)!r} holds no {'training' if train is None else 'validation'} pictures: "
            "expected "
            f"{LAYOUT} with pictures ending in {', '.join(SUFFIXES)}; folders with pictures found: "
            f"{found or 'none'}"
        )
    classes = sorted({c for split, c, _ in members if split == train})
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted({c for split, c, _ in members if split == val} - set(index))
    if unknown:
        raise ValueError(
            f"--data {str(path)!r}: the classes {unknown[:5]} of {val}/ have no pictures in {train}/; "
            "both splits must use the same class folders"
        )
    return FileSource(
        path.stem,
        path,
        classes,
        [(name, index[c]) for split, c, name in members if split == train],
        [(name, index[c]) for split, c, name in members if split == val],
        zipped,
    )


def _digits() -> ArraySource:
    """scikit-learn's digits: 1,797 grey 8x8 pictures of 10 classes; every fifth one validates."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RuntimeError("--data digits needs scikit-learn: pip install scikit-learn") from error
    digits = load_digits()
    images = np.repeat(np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None], 3, axis=3)
    labels = digits.target.astype(np.int64)
    val = np.arange(len(images)) % 5 == 0
    return ArraySource(
        "digits",
        [str(c) for c in digits.target_names],
        (images[~val], labels[~val]),
        (images[val], labels[val]),
    )


def _cifar10(root: Path, download: bool) -> ArraySource:
    datasets = _torchvision_datasets()
    try:
        train, val = (datasets.CIFAR10(root, train=flag, download=download) for flag in (True, False))
    except RuntimeError as error:
        raise ValueError(
            f"--data cifar10: not found under {root}; add --download or name its folder with --data-dir"
        ) from error
    return ArraySource(
        "cifar10",
        list(train.classes),
        (train.data, np.asarray(train.targets, np.int64)),
        (val.data, np.asarray(val.targets, np.int64)),
    )


def _imagenette(root: Path, download: bool) -> FileSource:
    folder = root / "imagenette2-320"
    if not folder.is_dir():
        if not download:
            raise ValueError(
                f"--data imagenette: not found under {root}; add --download or name its folder with "
                "--data-dir"
            )
        root.mkdir(parents=True, exist_ok=True)
        _torchvision_datasets().Imagenette(root, split="train", size="320px", download=True)
    return _directory(folder)


def _torchvision_datasets():
    from semisparse._torchvision import torchvision

    return torchvision.datasets
