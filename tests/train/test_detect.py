"""Options of `semisparse train detect`; whole runs are in tests/train/integrations."""

from pathlib import Path

import pytest

from semisparse.train.detect import _options, is_detector, main, parse


def test_defaults_depend_on_the_data():
    assert (parse([]).size, parse([]).epochs) == (96, 20)
    args = parse(["--data", "data.yaml", "--yolo", "mosaic=0.5", "cos_lr=True"])
    assert (args.size, args.epochs) == (640, 100) and args.yolo == {"mosaic": 0.5, "cos_lr": True}


def test_adaptive_optimisers_do_not_shake_the_biases_while_they_warm_up():
    def options(*arguments):
        return _options(parse(arguments), Path("data.yaml"), Path("run"))

    assert options("--opt", "AdamW")["warmup_bias_lr"] == 0
    assert options("--opt", "AdamW", "--yolo", "warmup_bias_lr=0.01")["warmup_bias_lr"] == 0.01
    assert "warmup_bias_lr" not in options("--opt", "SGD") | options()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "100"], "multiple of 32"),
        (["--size", "0"], "at least 32"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--lr", "0"], "more than 0"),
        (["--set", "columns.ratio=0.1"], "--recipe"),
        (["--yolo", "mosaic"], "OPTION=VALUE"),
        (["--recipe", "no-such-recipe"], "shipped"),
        (["--data", "nowhere.yaml"], "neither 'shapes'"),
    ],
)
def test_bad_options_are_explained(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        main([*arguments, "--output-dir", str(tmp_path / "run")])


def test_only_checkpoints_of_ultralytics_are_detectors(tmp_path):
    import torch

    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("ultralytics")
    for name in ("other.pt", "text.pt", "missing.pt"):
        assert not is_detector(tmp_path / name)
    (tmp_path / "run" / "weights").mkdir(parents=True)
    assert is_detector(tmp_path / "run") and not is_detector(tmp_path)
