"""Running converted detectors on pictures: geometry, suppression, what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import semisparse as ss
from semisparse.detection import GREY, Detector, letterbox, suppress

SIZES = st.integers(3, 80)


@settings(deadline=None)
@given(height=SIZES, width=SIZES, size=st.tuples(st.integers(4, 12), st.integers(4, 12)))
def test_picture_fills_one_side_and_is_centred(height, width, size):
    size = (8 * size[0], 8 * size[1])
    picture = torch.full((height, width, 3), 255, dtype=torch.uint8)
    x, place = letterbox(picture, size)
    assert x.shape == (1, 3, *size) and x.dtype == torch.float32
    white = (x[0, 0] - 1).abs() < 1e-6
    rows, columns = white.any(1).nonzero().flatten(), white.any(0).nonzero().flatten()
    assert len(rows) == size[0] or len(columns) == size[1]
    assert (x[0, 0][~white] - GREY).abs().max().item() < 1e-6 if (~white).any() else True
    for found, outer, first in ((rows, size[0], place.top), (columns, size[1], place.left)):
        assert found[0] == first and abs(first - (outer - 1 - found[-1])) <= 1
    assert len(rows) == pytest.approx(height * place.scale, abs=1)
    assert len(columns) == pytest.approx(width * place.scale, abs=1)


def test_colours_keep_their_channels():
    picture = torch.tensor([10, 100, 200], dtype=torch.uint8).expand(8, 8, 3)
    x, _ = letterbox(picture, (16, 16))
    assert torch.allclose(x[0, :, 8, 8], torch.tensor([10, 100, 200]) / 255)


def output(*boxes: tuple[float, float, float, float, int, float], classes: int = 3) -> Tensor:
    """(4 + classes, boxes) from (centre x, centre y, width, height, class, score)."""
    result = torch.zeros(4 + classes, len(boxes))
    for index, (*box, kind, score) in enumerate(boxes):
        result[:4, index] = torch.tensor(box)
        result[4 + kind, index] = score
    return result


def test_overlapping_boxes_of_one_class_are_suppressed():
    found = output(
        (50, 50, 20, 20, 0, 0.6),
        (51, 50, 20, 20, 0, 0.9),  # the same object, better
        (51, 50, 20, 20, 1, 0.8),  # another class
        (80, 50, 20, 20, 0, 0.3),
        (20, 20, 9, 9, 2, 0.1),  # below the confidence
    )
    boxes, scores, classes = suppress(found)
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.3]) and classes.tolist() == [0, 1, 0]
    assert boxes[0].tolist() == [41, 40, 61, 60]
    assert len(suppress(found, iou=0.95)[0]) == 4 and len(suppress(found, max_boxes=2)[0]) == 2
    assert len(suppress(found, confidence=0.95)[0]) == 0


@given(count=st.integers(0, 30), seed=st.integers(0, 1000), iou=st.floats(0.1, 0.9))
def test_suppression_is_the_definition(count, seed, iou):
    torch.manual_seed(seed)
    found = torch.cat([torch.rand(2, count) * 60, 5 + torch.rand(2, count) * 30, torch.rand(2, count)])
    boxes, scores, classes = suppress(found, confidence=0.2, iou=iou)
    best, kind = found[4:].max(0)
    corners = torch.cat([found[:2] - found[2:4] / 2, found[:2] + found[2:4] / 2]).T
    kept: list[int] = []
    for index in best.argsort(descending=True).tolist():
        rivals = [other for other in kept if kind[other] == kind[index]]
        if best[index] > 0.2 and all(overlap(corners[index], corners[other]) <= iou for other in rivals):
            kept.append(index)
    assert torch.equal(boxes, corners[kept]) and torch.equal(classes, kind[kept])
    assert torch.equal(scores, best[kept])


def overlap(a: Tensor, b: Tensor) -> float:
    extent = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    shared = extent.prod().item()
    return shared / ((a[2:] - a[:2]).prod().item() + (b[2:] - b[:2]).prod().item() - shared)


def test_end_to_end_output_is_only_filtered():
    found = torch.tensor(
        [[0, 0, 9, 9, 0.2, 1], [1, 1, 9, 9, 0.9, 2], [1, 1, 9, 9, 0.8, 2]], dtype=torch.float32
    )
    boxes, scores, classes = suppress(found, end2end=True)
    assert boxes.tolist() == found[1:, :4].tolist() and classes.tolist() == [2, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.8])


class OneBox(nn.Module):
    """Finds one box at the place where the picture is, whatever it shows."""

    def __init__(self, box):
        super().__init__()
        self.register_buffer("box", torch.tensor(box))

    def forward(self, x):
        scores = x.mean((1, 2, 3), keepdim=True)[..., 0] * 0 + torch.tensor([[[0.0], [0.75]]])
        return torch.cat([self.box.view(1, 4, 1).expand(x.shape[0], 4, 1), scores], 1)


def detector(box=(32.0, 16.0, 64.0, 32.0), size=(64, 96), **info):
    info = {"task": "detect", "names": ["a", "b"], "stride": 32, "end2end": False, **info}
    example = torch.zeros(1, 3, *size)
    return ss.SizedModel([ss.convert(OneBox(box), example, free_size=False)], info)


def test_boxes_are_in_pixels_of_the_picture(tmp_path):
    picture = np.zeros((100, 300, 3), np.uint8)  # scaled by 0.32 to 32 x 96, 16 rows of grey above and below
    ss.save(detector((48.0, 32.0, 96.0, 32.0)), tmp_path / "model.safetensors")
    found = Detector(tmp_path / "model.safetensors")(picture)
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 300.0, 100.0]]))
    assert found.names[found.classes[0]] == "b"
    assert len(found) == 1 and found.scores.item() == pytest.approx(0.75)
    outside = Detector(detector((48.0, 10.0, 30.0, 16.0)))(picture)
    assert outside.boxes[0, 1] == 0 and outside.boxes[0, 3] == 2 / 0.32  # clipped to the picture


def test_what_is_refused():
    good = Detector(detector())
    for picture in (np.zeros((8, 8)), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8), "picture.jpg"):
        with pytest.raises(ValueError, match="uint8 array"):
            good(picture)
    with pytest.raises(ValueError, match="64 x 96"):
        good(np.zeros((8, 8, 3), np.uint8), (64, 64))
    for info in ({"task": "classify"}, {"names": []}, {"names": [1]}, {"end2end": 1}, {"stride": 0}):
        with pytest.raises(ValueError, match="no converted detector"):
            Detector(detector(**info))
    with pytest.raises(ValueError, match="no converted detector"):
        Detector(nn.Identity())
