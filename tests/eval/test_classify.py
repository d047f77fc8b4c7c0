"""`semisparse eval classify` on two tiny runs: pictures of two colours, one step of training."""

import json

import pytest
import torch

pytest.importorskip("semisparse._torchvision")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

import semisparse as ss  # noqa: E402
from semisparse.eval import classify  # noqa: E402
from semisparse.train.classify import main as train  # noqa: E402

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("eval")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for channel, name in zip((2, 1, 0), CLASSES, strict=True):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 100, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / f"{i}.png")
    common = ["--data", str(root / "data"), "--no-cache", "--size", "64", "--batch-size", "9", "--quiet"]
    train([*common, "--epochs", "3", "--lr", "0.01", "--output-dir", str(root / "dense")])
    train(
        [
            *common,
            "--epochs",
            "1",
            "--lr",
            "0.001",
            "--recipe",
            "columns30",
            "--output-dir",
            str(root / "sparse"),
        ]
        + ["--checkpoint", str(root / "dense" / "checkpoint.pt")]
    )
    return root


def evaluate(*argv):
    classify.main([*map(str, argv), "--rounds", "3", "--peers", "torch", "--quiet"])


@pytest.fixture(scope="module")
def result(workspace):
    # The dense run is found from the sparse one's options.
    evaluate("--run", workspace / "sparse", "--output-dir", workspace / "out")
    return json.loads((workspace / "out" / "eval.json").read_text())


def test_dense_against_sparse(workspace, result):
    assert [(r["network"], r["engine"]) for r in result["rows"]] == [
        ("dense", "torch"), ("dense", "semisparse"), ("sparse", "semisparse")
    ]  # fmt: skip
    torch_row, own_dense, sparse = result["rows"]
    assert torch_row["top1"] == own_dense["top1"]
    assert torch_row["macs_removed"] == own_dense["macs_removed"] == 0
    assert 0.15 < sparse["macs_removed"] < 0.35
    for row in result["rows"]:
        assert 0 < row["p10"] <= row["latency"] <= row["p90"]
    assert torch_row["speedup_torch"] == own_dense["speedup_dense"] == 1
    assert torch_row["speedup_dense"] is None
    assert all(difference < 1e-4 for difference in result["converted_difference"].values())
    assert result["conditions"]["threads"] == 1 and result["machine"]["semisparse"] == ss.__version__
    with Image.open(workspace / "out" / "eval.png") as picture:
        assert picture.width > 1000


def test_the_saved_network_is_the_evaluated_one(workspace, result, capsys):
    file = workspace / "sparse" / "model.safetensors"
    evaluate("--model", file, "--data", workspace / "data", "--size", 64, "--output-dir", workspace / "file")
    (row,) = json.loads((workspace / "file" / "eval.json").read_text())["rows"]
    assert row["network"] == "model"
    for field in ("macs_removed", "top1", "top5"):
        assert row[field] == result["rows"][-1][field]
    table = capsys.readouterr().out
    for shown in (f"-{100 * row['macs_removed']:.1f}%", f"{row['top1']:.2f}", f"{row['latency']:.3f}"):
        assert shown in table


def test_masks_of_the_picture_are_those_of_the_run(workspace):
    from semisparse.masking import masked_modules
    from semisparse.train.run import load_run

    run = load_run(workspace / "sparse")
    masks = ss.convert(run.model, run.example()).column_masks()
    assert len(masks) == 16
    for name, module in masked_modules(run.model).items():
        assert torch.equal(masks[name], module.column_mask)


def test_two_networks_of_one_name_are_refused(workspace):
    with pytest.raises(ValueError, match="two of the networks are called 'sparse'"):
        evaluate("--run", workspace / "sparse", "--run", workspace / "sparse")


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="give --run DIR or --model"):
        evaluate()


@pytest.mark.parametrize("option", ["--threads", "--rounds", "--batch-size"])
def test_counts_below_one_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} is 0, expected at least 1"):
        classify.main(["--run", "anywhere", option, "0"])


def test_model_file_alone_needs_data(tmp_path):
    with pytest.raises(ValueError, match="--data is needed"):
        evaluate("--model", tmp_path / "model.safetensors")


def test_other_data_is_refused(workspace):
    with pytest.raises(ValueError, match=r"3 classes \(blue, green, red\.\.\.\), but the data has 10"):
        evaluate("--run", workspace / "sparse", "--data", "digits")


def test_missing_run_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        evaluate("--run", tmp_path / "nowhere")


def test_convert_command_writes_the_same_network(workspace, capsys):
    pytest.importorskip("typer")
    from semisparse import cli

    target = workspace / "converted.safetensors"
    with pytest.raises(SystemExit) as exit_:
        cli.main(["convert", str(workspace / "sparse"), "-o", str(target)])
    assert not exit_.value.code
    assert "layer4.1.conv2" in capsys.readouterr().out  # the table of statistics
    fast = ss.load(target)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    from semisparse.train.run import load_run

    with torch.inference_mode():
        torch.testing.assert_close(fast(x), load_run(workspace / "sparse").model(x), rtol=1e-4, atol=1e-4)
