"""Detection data in YOLO layout: a `data.yaml`, a directory or zip that holds one, or the drawn `shapes`."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from semisparse._files import replace_atomically

from .shapes import write_shapes
from .sources import SUFFIXES, cache_directory

_LAYOUT = "a YAML file with train, val (folders of pictures, with labels beside them) and names"


def open_detection_data(
    data: str, directory: str | os.PathLike, *, data_dir: str | os.PathLike | None = None
) -> Path:
    """The `data.yaml` that `--data` names, checked, with absolute paths.

    Args:
        data: `shapes`; a data.yaml, whose relative paths start at the file itself; a directory that holds
            one; or a zip that does, which is unpacked once.
        directory: a resolved copy of the yaml is written here.
        data_dir: where `shapes` and unpacked archives are kept (default: `semisparse` in the user's cache).

    Raises:
        ValueError: there is nothing at the path, or a split that the file names does not exist.
    """
    cache = Path(data_dir) if data_dir else cache_directory() / "data"
    path = Path(data).expanduser()
    if data.lower() == "shapes" and not path.exists():
        path = write_shapes(cache / "shapes")
    elif path.is_file() and zipfile.is_zipfile(path):
        path = _only_yaml(_unpacked(path, cache))
    elif path.is_dir():
        path = _only_yaml(path)
    if not path.is_file() or path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"--data {data!r} is neither 'shapes' nor {_LAYOUT}, nor a directory or zip that holds one"
        )
    content = _content(path)
    root = Path(content.get("path") or ".").expanduser()
    content["path"] = str((path.parent / root).resolve())
    for split in ("train", "val", *(["test"] if content.get("test") else [])):
        _check_split(path, split, content)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    import yaml

    with replace_atomically(directory / "data.yaml") as file:
        file.write(yaml.safe_dump(content, sort_keys=False).encode())
    return (directory / "data.yaml").resolve()


def list_pictures(data: str | os.PathLike, split: str) -> list[Path]:
    """Files of the pictures of a split of a data.yaml that `open_detection_data` returned, sorted.

    Raises ValueError if the file has no such split, or the split no picture.
    """
    content = _content(Path(data))
    entries = content.get(split) or []
    files: list[Path] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        place = Path(content["path"]) / str(entry)
        if place.is_dir():
            files += [path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES]
        else:  # a list of files; "./" starts at the list's folder
            files += [place.parent / line for line in place.read_text().splitlines() if line.strip()]
    if not files:
        raise ValueError(f"{data} has no pictures for the split {split!r}; choose another one")
    return sorted(files)


def _content(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not content.get("names"):
        raise ValueError(f"{path} has no class names; expected {_LAYOUT}")
    missing = [split for split in ("train", "val") if not content.get(split)]
    if missing:
        raise ValueError(f"{path} does not say where {' and '.join(missing)} are; expected {_LAYOUT}")
    return content


def _check_split(path: Path, split: str, content: dict[str, Any]) -> None:
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    for entry in entries:
        place = Path(content["path"]) / str(entry)
        if not place.exists():
            raise ValueError(
                f"{path}: {split} is {str(entry)!r}, but there is no {place}; correct the path in the "
                "file (relative ones start at its own folder)"
            )


def _only_yaml(directory: Path) -> Path:
    found = sorted(
        p for depth in ("*", "*/*") for p in directory.glob(depth) if p.suffix in (".yaml", ".yml")
    )
    named = [p for p in found if p.stem == "data"] or found
    if len(named) != 1:
        listed = ", ".join(str(p.relative_to(directory)) for p in named[:4]) or "none"
        raise ValueError(f"{directory} must hold one data.yaml, {_LAYOUT}; found: {listed}")
    return named[0]


def _unpacked(archive: Path, cache: Path) -> Path:
    """The archive's content, unpacked once; an archive that has changed is unpacked again."""
    state = archive.stat()
    target = cache / f"{archive.stem}-{state.st_size:x}-{state.st_mtime_ns:x}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{archive.stem}.", dir=cache))
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(temporary)  # which keeps every member inside
        temporary.chmod(0o755)
        os.rename(temporary, target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
