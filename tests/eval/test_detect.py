"""`semisparse eval detect` on the run that tests/conftest.py trains."""

import json

import numpy as np
import pytest
import torch
import yolo
from PIL import Image

from semisparse.detection import Detections
from semisparse.eval.boxes import draw_boxes

yolo.require()
from semisparse.eval import detect  # noqa: E402


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    from semisparse.train.integrations.ultralytics import YOLO

    directory = tmp_path_factory.mktemp("dense")
    model = YOLO(yolo.network(directory))
    model.model.names = {0: "disc", 1: "square", 2: "triangle"}
    model.save(directory / "dense.pt")
    return directory / "dense.pt"


def test_everything_is_measured_and_written(yolo_run, dense, tmp_path):
    run, summary = yolo_run
    arguments = ["--run", str(run), "--model", str(run / "model.safetensors"), "--dense", str(dense)]
    result = detect.main(
        [
            *arguments,
            "--size",
            "96",
            "--rounds",
            "1",
            "--peers",
            "torch",
            "--output-dir",
            str(tmp_path),
            "--quiet",
        ]
    )
    rows = {row.network: row for row in result.rows}
    assert list(rows) == ["dense", "run", "model"]
    assert rows["run"].trained == pytest.approx((summary["map50"], summary["map"]), abs=0.1)
    assert rows["run"].converted == pytest.approx(rows["run"].trained, abs=0.1)
    assert rows["model"].trained is None and rows["model"].converted == rows["run"].converted
    assert rows["run"].sparse and not rows["dense"].sparse and rows["dense"].converted[0] < 5
    assert 0 < rows["run"].coverage[1] < 1 and rows["dense"].coverage == (0.0, 0.0)
    assert all(row.stages[stage].median > 0 for row in result.rows for stage in detect.STAGES)
    assert set(result.races[96].engines.values()) == {"semisparse", "torch"}
    assert max(result.races[96].differences.values()) < 1e-3
    stored = json.loads((tmp_path / "detect.json").read_text())
    assert [row["network"] for row in stored["rows"]] == list(rows)
    for name in ("detect.png", "boxes.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to evaluate"),
        (["--run", "nowhere"], "--data is needed"),
        (["--run", "nowhere", "--data", "shapes"], "neither a checkpoint"),
        (["--run", "x", "--rounds", "0"], "at least 1"),
        (["--run", "x", "--confidence", "1.5"], "in \\[0, 1\\)"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        detect.main([*arguments, "--data-dir", str(tmp_path), "--output-dir", str(tmp_path / "out")])


def test_data_of_other_classes_is_refused(yolo_run, tmp_path):
    run, _ = yolo_run
    other = (run / "data.yaml").read_text().replace("triangle", "hexagon")
    (tmp_path / "data.yaml").write_text(other)
    with pytest.raises(ValueError, match="hexagon"):
        detect.main(["--run", str(run), "--data", str(tmp_path / "data.yaml"), "--output-dir", str(tmp_path)])


def test_boxes_are_drawn_where_they_are(tmp_path):
    picture = np.full((40, 60, 3), 200, np.uint8)
    found = Detections(
        torch.tensor([[10.0, 20.0, 30.0, 36.0]]), torch.tensor([0.9]), torch.tensor([1]), ["a", "b"]
    )
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), ["a", "b"])
    sheet = np.asarray(
        Image.open(draw_boxes(tmp_path / "x.png", [picture], {"one": [found], "two": [nothing]}))
    )
    scale = 240 / 60
    left, top = 8, 30  # margins of the first panel
    row, column = top + round(28 * scale), left + round(10 * scale)
    assert (
        sheet[row, column] == (0x1F, 0x6F, 0x8B)
    ).all()  # the second class's colour, on the box's left side
    assert (sheet[row, left + 2] == 200).all() and (sheet[row, left + 240 + 8 + 40] == 200).all()
