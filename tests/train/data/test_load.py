import os
import time
import zipfile

import numpy as np
import pytest
import torch

from semisparse.train.data import load_data, memory
from semisparse.train.data.sources import open_source

Image = pytest.importorskip("PIL.Image")
COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 12), ("val", 5)):
        for name, colour in COLOURS.items():
            directory = tmp_path / "set" / split / name
            directory.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (30 + i, 24), colour).save(directory / f"{i}.png")
            (directory / "notes.txt").write_text("not a picture")
    return tmp_path / "set"


@pytest.fixture
def archive(folder, tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        for picture in sorted(folder.rglob("*.*")):
            file.write(picture, f"set/{picture.relative_to(folder)}")
    return path


def colours(images):
    return images.mean((2, 3)).argmax(1)  # channel 0: red, channel 1: green


@pytest.mark.parametrize("kind", ["folder", "archive"])
@pytest.mark.parametrize("memory_limit", [1e9, 0], ids=["memory", "streaming"])
def test_image_folder(kind, memory_limit, request):
    path = request.getfixturevalue(kind)
    data = load_data(
        str(path), size=16, batch_size=8, workers=0 if memory_limit == 0 else 2, memory_limit=memory_limit
    )
    assert data.classes == ["green", "red"] and data.size == 16
    assert len(data.train) == 3 and len(data.val) == 2
    for loader, total in ((data.train, 24), (data.val, 10)):
        images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert images.shape == (total, 3, 16, 16) and images.dtype == torch.float32
        assert torch.equal(colours(images), 1 - labels)
        assert labels.bincount().tolist() == [total // 2, total // 2]


@pytest.mark.parametrize("memory_limit", [1e9, 0], ids=["memory", "streaming"])
def test_an_epoch_depends_on_seed_and_epoch_alone(folder, memory_limit):
    def epoch(number, seed=0, skip=False):
        data = load_data(str(folder), size=16, batch_size=6, seed=seed, workers=0, memory_limit=memory_limit)
        if not skip:
            list(data.train)  # an epoch before must not matter
        data.train.set_epoch(number)
        return torch.cat([images for images, _ in data.train])

    assert torch.equal(epoch(3), epoch(3, skip=True))
    assert not torch.equal(epoch(3), epoch(4))
    assert not torch.equal(epoch(3), epoch(3, seed=1))


@pytest.mark.parametrize("memory_limit", [1e9, 0], ids=["memory", "streaming"])
def test_ranks_share_the_pictures(folder, memory_limit):
    seen, validated = [], 0
    for rank in range(2):
        data = load_data(
            str(folder), size=16, batch_size=4, workers=0, memory_limit=memory_limit, rank=rank, world_size=2
        )
        assert len(data.train) == 3
        seen.append(torch.cat([labels for _, labels in data.train]))
        validated += sum(len(labels) for _, labels in data.val)
    assert torch.cat(seen).bincount().tolist() == [12, 12]
    assert validated == 10


@pytest.mark.parametrize("memory_limit", [1e9, 0], ids=["memory", "streaming"])
def test_held_out_pictures_are_not_trained_on(folder, memory_limit):
    for i in range(12):  # every picture of its own brightness, so that it can be recognised
        for j, name in enumerate(COLOURS):
            Image.new("RGB", (24, 24), (8 * i + 4 * j,) * 3).save(folder / "train" / name / f"{i}.png")

    def loaders(rank):
        data = load_data(
            *(str(folder),),
            **dict(size=16, batch_size=4, workers=0, memory_limit=memory_limit, augmentation="none"),
            **dict(rank=rank, world_size=2, seed=5, cache=False),
        )
        return data.train.hold_out(8), data.train

    def pictures(loader):
        return {round(picture.mean().item(), 3) for images, _ in loader for picture in images}

    held, trained = set(), set()
    for rank in (0, 1):
        aside, train = loaders(rank)
        assert len(aside) == 1 and len(train) == 2
        mine = pictures(aside)
        assert len(mine) == 4 and not mine & held and mine == pictures(aside)
        held |= mine
        for epoch in range(4):
            train.set_epoch(epoch)
            trained |= pictures(train)
    assert len(held) == 8 and len(trained) == 16 and not held & trained
    assert pictures(loaders(0)[0]) | pictures(loaders(1)[0]) == held
    _, train = loaders(0)
    with pytest.raises(ValueError, match="9 of 16 training pictures are to be held out, but .* needs 8"):
        train.hold_out(9)


def test_held_out_pictures_are_mixed_and_the_others_keep_their_order():
    pictures = torch.arange(100, 300)
    held, rest = memory.split(pictures, 64, 3, 32)
    assert sorted([*held.tolist(), *rest.tolist()]) == pictures.tolist()
    assert rest.tolist() == sorted(rest.tolist())
    # Sets are sorted by class: batches of neighbours would be of one class.
    assert all(held[i : i + 16].max() - held[i : i + 16].min() > 60 for i in range(0, 64, 16))
    assert torch.equal(memory.split(pictures, 64, 3, 32)[0], held)
    assert not torch.equal(memory.split(pictures, 64, 4, 32)[0], held)


def test_decoded_pictures_are_cached_until_the_files_change(folder, cache, monkeypatch):
    first = next(iter(load_data(str(folder), size=16).val))[0]
    files = sorted(os.listdir(cache / "semisparse" / "decoded"))
    assert len(files) == 2 and not any(name.startswith(".") for name in files)
    from semisparse.train.data import sources

    decode = sources.FileSource.picture
    monkeypatch.setattr(sources.FileSource, "picture", lambda *a: pytest.fail("decoded again"))
    assert torch.equal(next(iter(load_data(str(folder), size=16).val))[0], first)
    monkeypatch.setattr(sources.FileSource, "picture", decode)
    changed = folder / "val" / "green" / "0.png"
    Image.new("RGB", (30, 24), (0, 0, 0)).save(changed)
    os.utime(changed, (time.time() + 5,) * 2)
    assert not torch.equal(next(iter(load_data(str(folder), size=16).val))[0], first)
    # A damaged cache file is replaced, not believed.
    for name in os.listdir(cache / "semisparse" / "decoded"):
        (cache / "semisparse" / "decoded" / name).write_bytes(b"x")
    assert next(iter(load_data(str(folder), size=16).val))[0].shape == first.shape


def test_no_cache_writes_nothing(folder, cache):
    load_data(str(folder), size=16, cache=False)
    assert not cache.exists()


def test_digits():
    pytest.importorskip("sklearn")
    data = load_data("digits", size=24, batch_size=100)
    assert data.name == "digits" and len(data.classes) == 10 and len(data.train) == 14
    images, labels = next(iter(data.val))
    assert images.shape == (100, 3, 24, 24)
    assert sum(len(y) for _, y in data.val) == 360
    assert images.std() > 0.5


def test_a_picture_that_cannot_be_decoded_is_named(folder):
    (folder / "val" / "red" / "broken.png").write_bytes(b"\x89PNG nothing more")
    with pytest.raises(RuntimeError, match="cannot decode 'val/red/broken.png' of .*replace or remove"):
        load_data(str(folder), size=16)


def test_wrong_paths(tmp_path, folder):
    with pytest.raises(
        ValueError, match=r"'nowhere.zip' is neither a file nor a directory nor one of .*'digits'"
    ):
        open_source("nowhere.zip")
    (tmp_path / "a.zip").write_text("text")
    with pytest.raises(ValueError, match="is a file but not a zip archive"):
        open_source(str(tmp_path / "a.zip"))
    with pytest.raises(ValueError, match=r"holds no training pictures: expected train/<class>/<picture>"):
        open_source(str(folder / "train"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("train/cat/1.png", b"")
    with pytest.raises(ValueError, match="holds no validation pictures"):
        open_source(str(tmp_path / "b.zip"))
    (folder / "val" / "blue").mkdir()
    Image.new("RGB", (20, 20)).save(folder / "val" / "blue" / "1.png")
    with pytest.raises(ValueError, match=r"the classes \['blue'\] of val/ have no pictures in train/"):
        open_source(str(folder))


@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_a_download_has_to_be_asked_for(name, tmp_path):
    with pytest.raises(ValueError, match="add --download or name its folder with --data-dir"):
        open_source(name, data_dir=tmp_path)


def test_bad_options(folder):
    with pytest.raises(ValueError, match="augmentation 'mixup' is unknown; choose one of resized-crop"):
        load_data(str(folder), augmentation="mixup")
    with pytest.raises(ValueError, match="size 4 is too small"):
        load_data(str(folder), size=4)
    with pytest.raises(ValueError, match="batch size 0"):
        load_data(str(folder), batch_size=0)
    with pytest.raises(ValueError, match="augmentation 'shift' is for small sets"):
        load_data(str(folder), size=16, augmentation="shift", memory_limit=0)


def test_aspect_ratio_is_kept(tmp_path):
    from semisparse.train.data.memory import resize_center

    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # the middle third is what the centre crop keeps
    assert (resize_center(Image.fromarray(wide), 10)[:, 1:-1] > 150).all()
    assert resize_center(Image.fromarray(wide), 10).shape == (10, 10, 3)
