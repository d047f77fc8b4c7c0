"""Detection data: what is drawn, and what is said about data that is not there."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from semisparse.train.data.detection import list_pictures, open_detection_data
from semisparse.train.data.shapes import NAMES, draw, write_shapes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("data") / "set", train=6, val=3, size=(40, 56), seed=3)


def test_same_seed_same_pictures(shapes, tmp_path):
    again = write_shapes(tmp_path / "set", train=6, val=3, size=(40, 56), seed=3)
    for file in sorted(shapes.parent.rglob("*/*/*.*")):
        assert file.read_bytes() == (again.parent / file.relative_to(shapes.parent)).read_bytes()
    other = write_shapes(tmp_path / "other", train=6, val=3, size=(40, 56), seed=4)
    first = "images/train/0000.png"
    assert (other.parent / first).read_bytes() != (shapes.parent / first).read_bytes()


def test_labels_are_tight_boxes_inside_the_picture():
    generator, seen = np.random.default_rng(0), set()
    for _ in range(40):
        picture, labels = draw(generator, (48, 64))
        assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
        for kind, (x, y, w, h) in labels:
            seen.add(kind)
            assert 0 <= x - w / 2 and x + w / 2 <= 1 and 0 <= y - h / 2 and y + h / 2 <= 1
            assert 0.1 * 48 <= h * 48 <= 0.6 * 48
            assert kind != NAMES.index("disc") or abs(w * 64 - h * 48) <= 2
    assert seen == {0, 1, 2}


def test_existing_data_is_kept_and_other_data_refused(shapes):
    stamp = (shapes.parent / "settings.json").stat().st_mtime_ns
    assert write_shapes(shapes.parent, train=6, val=3, size=(40, 56), seed=3) == shapes
    assert (shapes.parent / "settings.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another data set"):
        write_shapes(shapes.parent, train=7, val=3, size=(40, 56), seed=3)
    with pytest.raises(ValueError, match="32 pixels"):
        write_shapes(shapes.parent / "x", size=(16, 16))


def test_yaml_directory_and_zip_name_the_same_pictures(shapes, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(shapes.parent, moved)
    content = yaml.safe_load((moved / "data.yaml").read_text())
    (moved / "data.yaml").write_text(yaml.safe_dump({**content, "path": "."}))
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in moved.rglob("*"):
            file.write(path, Path("inner") / path.relative_to(moved))
    for given in (moved / "data.yaml", moved, archive, archive):
        found = open_detection_data(str(given), tmp_path / "run", data_dir=tmp_path / "cache")
        assert found == tmp_path / "run" / "data.yaml"
        names = [path.name for path in list_pictures(found, "train")]
        assert names == [f"{index:04}.png" for index in range(6)]
        assert all(Path(entry).is_absolute() for entry in [yaml.safe_load(found.read_text())["path"]])
    assert len(list((tmp_path / "cache").iterdir())) == 1  # unpacked once
    assert Image.open(list_pictures(found, "val")[0]).size == (56, 40)


def test_shapes_is_a_name(tmp_path):
    data = open_detection_data("shapes", tmp_path / "run", data_dir=tmp_path / "cache")
    assert yaml.safe_load(data.read_text())["names"] == dict(enumerate(NAMES))
    assert len(list_pictures(data, "val")) == 80


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": "images", "val": "nowhere", "names": ["a"]}, "there is no .*nowhere"),
        ({"path": "/no/such/place", "train": "a", "val": "b", "names": ["a"]}, "there is no /no/such/place"),
        ({"train": "images", "names": ["a"]}, "where val are"),
        ({"train": "images", "val": "images"}, "no class names"),
        ("[1, 2", "not valid YAML"),
    ],
)
def test_bad_yaml_is_explained(tmp_path, content, message):
    (tmp_path / "images").mkdir()
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_detection_data(str(tmp_path / "data.yaml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(ValueError, match="neither 'shapes' nor"):
        open_detection_data("missing.yaml", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold one data.yaml"):
        open_detection_data(str(tmp_path / "empty"), tmp_path / "run")
    (tmp_path / "list.txt").write_text("")
    (tmp_path / "data.yaml").write_text(
        yaml.safe_dump({"train": "list.txt", "val": "list.txt", "names": ["a"]})
    )
    data = open_detection_data(str(tmp_path / "data.yaml"), tmp_path / "run")
    with pytest.raises(ValueError, match="no pictures"):
        list_pictures(data, "val")
