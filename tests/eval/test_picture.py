import pytest
import torch

pytest.importorskip("matplotlib")

from PIL import Image  # noqa: E402

from semisparse.eval.picture import Point, draw  # noqa: E402

POINTS = [
    Point("torch", False, 20.0, 19.0, 22.0, 86.0),
    Point("semisparse", False, 15.0, 14.5, 16.0, 86.0),
    Point("columns 0.3", True, 11.0, 10.5, 12.0, 85.5),
]


def masks(count):
    generator = torch.Generator().manual_seed(0)
    return {f"layer{i}": torch.rand(7, 9, generator=generator) > 0.3 for i in range(count)}


@pytest.mark.parametrize("count", [0, 1, 16, 40])
def test_picture_is_a_readable_png(tmp_path, count):
    path = draw(tmp_path / "p.png", "title", masks(count), POINTS, "subtitle")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 800
        colours = {c for _, c in picture.convert("RGB").getcolors(1 << 20)}
    assert (0xD1, 0x49, 0x5B) in colours  # the sparse point is there
    assert ((0x1F, 0x6F, 0x8B) in colours) == (count > 0)  # and so are the masks
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_a_failed_write_leaves_no_file(tmp_path):
    with pytest.raises(ValueError):
        draw(tmp_path / "p.png", "title", masks(1), [])
    assert list(tmp_path.iterdir()) == []
