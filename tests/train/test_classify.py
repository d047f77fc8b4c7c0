import json
import os
import signal
import subprocess
import sys

import pytest
import torch

import semisparse as ss
from semisparse.masking import column_mask, masked_modules
from semisparse.recipe import Recipe
from semisparse.train.checkpoint import load_checkpoint
from semisparse.train.classify import _Run, main
from semisparse.train.data.sources import ArraySource
from semisparse.train.run import load_run

pytest.importorskip("sklearn")

# Both kinds of criterion and two methods for weights in one run, and layers without columns or weights.
RECIPE = {
    "_default": {
        "scheme": "pattern",
        "group": 4,
        "connectivity": 0.25,
        "end": 0.6,
        "rho": 10.0,
        "columns": {"ratio": 0.3, "begin": 0.1, "end": 0.8},
    },
    "re:layer1.*": {"columns": {"criterion": "coherent_random", "granularity": "run4"}},
    "layer2.0.conv1": {
        "scheme": "unstructured",
        "ratio": 0.8,
        "connectivity": 0,
        "group": 1,
        "method": "magnitude",
    },
    "re:layer4.*": {"scheme": "dense", "connectivity": 0, "group": 1},  # large and slow to order
    "layer4.1.conv2": {"columns": None},
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    Recipe(RECIPE).save(path)
    return str(path)


def options(directory, *more):
    return [
        *("--data", "digits", "--size", "32", "-b", "128", "--epochs", "2", "--lr", "0.05", "--quiet"),
        *("--output-dir", str(directory), *more),
    ]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "dense"
    torch.set_num_threads(1)
    return directory, main(options(directory, "--epochs", "3"))


@pytest.fixture(scope="module")
def sparse(dense, recipe, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "sparse"
    torch.set_num_threads(1)
    checkpoint = str(dense[0] / "checkpoint.pt")
    return directory, main(
        options(directory, "--checkpoint", checkpoint, "--recipe", recipe, "--model-ema", "--lr", "0.01")
    )


def test_dense_run_learns_and_leaves_its_files(dense):
    directory, summary = dense
    assert summary["top1"] > 80 and summary["pictures"] == 360
    assert sorted(os.listdir(directory)) == [
        "checkpoint.pt",
        "log.jsonl",
        "model.safetensors",
        "summary.json",
    ]
    assert json.loads((directory / "summary.json").read_text()) == summary
    rows = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3] and rows[-1]["top1"] == summary["top1"]


def test_sparse_run_keeps_accuracy_and_masks(sparse, dense):
    directory, summary = sparse
    assert summary["top1"] > dense[1]["top1"] - 12  # half of 22 steps without most weights
    assert Recipe.load(directory / "recipe.yaml") == Recipe(RECIPE)
    run = load_run(directory)
    assert run.name == "sparse" and run.classes == [str(i) for i in range(10)] and run.epoch == 2
    assert run.example().shape == (1, 3, 32, 32) and not run.model.training
    masked = masked_modules(run.model)
    assert set(masked) == set(summary["columns"]) and "layer4.1.conv2" not in masked and len(masked) == 15
    assert run.recipe == Recipe(RECIPE)
    assert len(summary["weights"]) == 12 and "layer4.0.conv1" not in summary["weights"]
    assert summary["weights"]["layer3.0.conv2"] == pytest.approx(1 - 4 / 9 * 3 / 4)
    assert summary["weights"]["layer2.0.conv1"] == pytest.approx(0.8, abs=1e-4)
    mask = column_mask(masked["layer1.0.conv1"])
    assert mask.shape == (8, 8) and int((~mask).sum()) == 20  # five runs of four are closest to 0.3 * 64
    x = torch.randn(2, 3, 32, 32)
    converted, trained = ss.load(directory / "model.safetensors")(x), run.model(x)
    assert (converted - trained).abs().max() < 1e-4 * trained.abs().max()
    layers = {layer.name: layer for layer in ss.statistics(ss.load(directory / "model.safetensors")).layers}
    assert layers["layer3.0.conv2"].scheme == "pattern"
    for name, removed in summary["weights"].items():
        assert layers[name].weight_sparsity == pytest.approx(removed, abs=1e-6)
    updates = [row for epoch in run.history for row in epoch["methods"]]
    assert [row["step"] for row in updates] == [4, 8, 12] and updates[-1]["residual"] < updates[0]["residual"]
    # The averaged weights are what was evaluated, and what comes back, with the frozen masks.
    state = load_checkpoint(directory / "checkpoint.pt")
    average = state["model_ema"]["module"]
    assert torch.equal(run.model.fc.weight, average["fc.weight"])
    assert not torch.equal(run.model.fc.weight, state["model"]["fc.weight"])
    assert all(
        torch.equal(average[f"{name}.column_mask"], column_mask(module)) for name, module in masked.items()
    )


def test_test_only_repeats_the_last_evaluation(dense):
    directory, summary = dense
    again = main(
        options(directory / "unused", "--checkpoint", str(directory / "checkpoint.pt"), "--test-only")
    )
    assert again["top1"] == summary["top1"] and again["loss"] == pytest.approx(summary["loss"], rel=1e-5)
    assert not (directory / "unused").exists()


def test_distillation_amp_and_batch_norm_reestimation(dense, tmp_path):
    checkpoint = str(dense[0] / "checkpoint.pt")
    summary = main(
        options(
            tmp_path,
            "--epochs",
            "1",
            "--checkpoint",
            checkpoint,
            "--recipe",
            "columns20",
            "--distill",
            checkpoint,
        )
        + ["--amp", "--bn-batches", "4", "--lr", "0.01", "--set", "columns.granularity=tile4x4"]
    )
    assert summary["top1"] > dense[1]["top1"] - 10
    assert load_run(tmp_path).options["amp"] is True
    assert summary["columns"]["layer1.0.conv1"] == 0.25  # one tile of four
    assert summary["columns"]["layer4.0.conv1"] == 0  # a 1x1 map stays whole


def test_a_killed_run_resumes_to_the_same_masks_and_schedule(recipe, tmp_path):
    def command(directory, *more):
        return [
            *(sys.executable, "-m", "semisparse.train.classify", "--recipe", recipe),
            *[o for o in options(directory, *small, *more) if o != "--quiet"],
        ]

    small = ("--size", "16")

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    main([*options(tmp_path / "whole", *small), "--recipe", recipe])
    killed = subprocess.Popen(
        command(tmp_path / "killed", "--print-freq", "1"), stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        for line in killed.stderr:
            if line.startswith("epoch 2 step 3/"):
                break
        killed.send_signal(signal.SIGKILL)
    finally:
        killed.kill()
        killed.wait(timeout=60)
    assert killed.returncode == -signal.SIGKILL and line.startswith("epoch 2 step 3/")
    assert load_checkpoint(tmp_path / "killed" / "checkpoint.pt")["epoch"] == 1
    main([*options(tmp_path / "killed", *small, "--resume"), "--recipe", recipe])
    whole, resumed = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "killed"))
    for key in ("steps", "frozen", "ratios", "recipe"):
        assert resumed["sparsifier"][key] == whole["sparsifier"][key]
    weights = [state["sparsifier"]["weights"]["layers"] for state in (resumed, whole)]
    for name, layer in weights[1].items():
        assert layer["frozen"] and torch.equal(layer["mask"], weights[0][name]["mask"])
    masks = whole["sparsifier"]["masks"]
    assert len(masks) == 15 and all(
        torch.equal(resumed["sparsifier"]["masks"][name], masks[name]) for name in masks
    )
    assert all(torch.equal(resumed["model"][name], value) for name, value in whole["model"].items())
    rows = [[(row["train_loss"], row["methods"]) for row in state["history"]] for state in (whole, resumed)]
    assert rows[0] == rows[1]


def test_granularity_and_masks_chosen_by_measuring_are_kept_in_a_resumed_run(dense, tmp_path, monkeypatch):
    from semisparse.train.columns import automatic

    chosen = ["--checkpoint", str(dense[0] / "checkpoint.pt"), "--lr", "0.01", "--recipe", "columns20"]
    chosen += ["--size", "16"]
    chosen += ["--set", "columns.granularity=auto", "columns.criterion=held_out"]
    fast = {"dense": 2.0, "pixel": 1.5, "run4": 1.0}
    monkeypatch.setattr(automatic, "_time", lambda *_: fast)
    whole = main(options(tmp_path / "whole", *chosen, "--epochs", "2"))

    def stop(self, epoch, train=_Run._epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return train(self, epoch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Run, "_epoch", stop)
        main(options(tmp_path / "cut", *chosen, "--epochs", "2"))
    monkeypatch.setattr(automatic, "_time", None)  # nothing is measured again
    resumed = main(options(tmp_path / "cut", *chosen, "--epochs", "2", "--resume"))
    states = [load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "cut")]
    masks = [state["sparsifier"]["masks"] for state in states]
    assert all(torch.equal(masks[0][name], mask) for name, mask in masks[1].items())
    best = [state["sparsifier"]["criteria"]["held_out"]["best"]["layer2.0.conv2"] for state in states]
    assert torch.equal(*best) and whole["loss"] == resumed["loss"]
    assert states[0]["args"]["held_out"] == 143  # a tenth; one whole batch of 128 is compared on
    # The run's own copy of the recipe names what was chosen, and continues the run as well.
    written = Recipe.load(tmp_path / "cut" / "recipe.yaml")
    assert written.layer("layer1.0.conv1").columns.granularity == "run4"
    same = [*chosen[:4], "--size", "16", "--recipe", str(tmp_path / "cut" / "recipe.yaml")]
    assert main(options(tmp_path / "cut", *same, "--epochs", "2", "--resume"))["loss"] == whole["loss"]


def test_resuming_something_else_is_refused(sparse, dense, recipe):
    directory = sparse[0]
    before = (directory / "checkpoint.pt").read_bytes()
    checkpoint = str(dense[0] / "checkpoint.pt")
    same = ["--checkpoint", checkpoint, "--recipe", recipe, "--model-ema", "--resume"]
    with pytest.raises(ValueError, match="differs from the recipe of the run to resume"):
        main(options(directory, "--recipe", "columns10", "--resume"))
    with pytest.raises(ValueError, match="trains with a recipe; name it with --recipe"):
        main(options(directory, "--resume"))
    with pytest.raises(ValueError, match=r"other options \(epochs 2 then, 5 now"):
        main(options(directory, *same, "--epochs", "5"))
    with pytest.raises(ValueError, match="mask of size|of another model|model resnet18 then"):
        main(options(directory, *same, "--model", "resnet34"))
    assert (directory / "checkpoint.pt").read_bytes() == before


def test_wrong_checkpoints_and_options(dense, tmp_path, monkeypatch):
    checkpoint = str(dense[0] / "checkpoint.pt")
    out = tmp_path / "out"
    for more, message in (
        (
            ["--checkpoint", checkpoint, "--model", "resnet34"],
            "checkpoint of another model .*entries missing",
        ),
        (["--checkpoint", str(tmp_path / "none.pt")], "does not exist"),
        (["--model", "resnet19"], "model 'resnet19' is unknown; expected .* such as resnet"),
        (["--recipe", "columns99"], "neither a file nor one of the shipped recipes"),
        (["--data", str(tmp_path / "none")], "is neither a file nor a directory"),
        (["--recipe", "columns10", "--set", "columns.ratio=1"], r"columns.ratio is 1"),
        (["--set", "columns.ratio=0.1"], "--set changes a recipe"),
        (["--label-smoothing", "1"], "--label-smoothing is 1.0, expected in"),
        (["--weights", "DEFAULT", "--checkpoint", checkpoint], "give one of them"),
        (["--test-only"], "--test-only needs a trained model"),
    ):
        with pytest.raises(ValueError, match=message):
            main(options(out, *more))
    monkeypatch.setattr("semisparse.train.data.load.open_source", other_classes)
    with pytest.raises(
        ValueError, match=r"was trained on the classes \['0', '1', '2', '3'\]..., but --data digits has \['x'"
    ):
        main(options(out, "--checkpoint", checkpoint))
    assert not out.exists()


def other_classes(data, **_):
    split = (torch.zeros(4, 8, 8, 3, dtype=torch.uint8).numpy(), torch.tensor([0, 1, 0, 1]).numpy())
    return ArraySource("digits", ["x", "y"], split, split)


def test_a_run_needs_more_than_weights(tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="lacks args, classes, epoch: it holds weights only"):
        load_run(tmp_path / "w.pt")
    with pytest.raises(ValueError, match="does not exist"):
        load_run(tmp_path)
