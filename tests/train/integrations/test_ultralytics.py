"""YOLO: training with masks, checkpoints, conversion of whole networks, Ultralytics' own API."""

import copy
import pickle

import numpy as np
import pytest
import torch
import yolo
from torch import nn

import semisparse as ss
from semisparse import masking
from semisparse.detection import Detector
from semisparse.recipe import Recipe
from semisparse.train.data.shapes import write_shapes

yolo.require()
from semisparse.train.integrations import ultralytics as integration  # noqa: E402

YOLO = integration.YOLO
COLUMNS = {"_default": {"columns": {"ratio": 0.3, "criterion": "coherent_random", "begin": 0.0, "end": 0.5}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shapes") / "set"
    return write_shapes(directory, train=16, val=8, size=(32, 48))


@pytest.fixture
def train(data, tmp_path):
    """Train the small network for two epochs of two steps on 16 pictures; returns the YOLO object."""

    def run(recipe=COLUMNS, model=None, **options):
        settings = {
            **dict(data=str(data), imgsz=64, epochs=2, batch=8, nbs=8, optimizer="AdamW", lr0=0.002),
            **dict(
                project=str(tmp_path), name="run", exist_ok=True, plots=False, verbose=False, device="cpu"
            ),
            **options,
        }
        detector = model or YOLO(yolo.network(tmp_path))
        detector.train(trainer=integration.SparseDetectionTrainer, recipe=recipe, **settings)
        return detector

    return run


def randomize(model: nn.Module) -> nn.Module:
    """BatchNorm statistics, and head biases, that let something through to the outputs."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return model.eval()


def impose(model: nn.Module, size: int, recipe=COLUMNS) -> nn.Module:
    recipe = integration.skips_for_detection(Recipe(recipe), model)
    sparsifier = ss.train.Sparsifier(model, recipe, torch.zeros(1, 3, size, size))
    sparsifier.step()
    sparsifier.finalize()
    masking.set_other_sizes(model, "resample")
    return model


# -- a whole run --------------------------------------------------------------------------------------------
def test_killed_and_resumed_training_learns_and_keeps_its_masks(yolo_run):
    run, summary = yolo_run
    network = integration.load(run)
    untrained = integration.evaluate(YOLO(yolo.network(run.parent)), run / "data.yaml", yolo.SIZE)
    assert 100 * untrained.box.map50 < 3 and summary["map50"] > 10
    state = network.sparsity["state"]
    assert state["steps"] == state["total_steps"] == yolo.EPOCHS * 240 // 8
    masks = masking.masked_modules(network)
    assert masks.keys() == set(state["frozen"])
    for name, module in masks.items():
        mask = masking.column_mask(module)
        assert torch.equal(mask, state["masks"][name])
        assert 1 - mask.float().mean().item() == pytest.approx(0.3, abs=0.02)
    epochs = {int(line.split(",")[0]) for line in (run / "results.csv").read_text().splitlines()[1:]}
    assert epochs == set(range(1, yolo.EPOCHS + 1))


def test_finished_run_is_only_evaluated_again(yolo_run):
    from semisparse.train.detect import main

    run, summary = yolo_run
    before = (run / "weights" / "best.pt").read_bytes()
    again = main([*yolo.options(run.parent, yolo.EPOCHS), "--resume"])
    assert again["map"] == pytest.approx(summary["map"], abs=1e-3)
    assert (run / "weights" / "best.pt").read_bytes() == before


def test_converted_file_equals_the_trained_network(yolo_run):
    run, _ = yolo_run
    network, fast = integration.load(run), ss.load(run / "model.safetensors")
    assert fast.sizes == ((yolo.SIZE, yolo.SIZE),) and fast.info["masks"] == {"96x96": "exact"}
    assert all(layer.packed for layer in fast.layers)
    assert masking.masked_modules(network).keys() <= {layer.name for layer in fast.layers}
    assert sum(layer.column_sparsity > 0.25 for layer in fast.layers) == len(masking.masked_modules(network))
    pictures = torch.rand(3, 3, yolo.SIZE, yolo.SIZE)
    with torch.no_grad():
        torch.testing.assert_close(fast(pictures), network(pictures)[0], rtol=1e-3, atol=1e-3)
    without_torch = ss.runtime.load(run / "model.safetensors")(pictures.numpy())
    torch.testing.assert_close(
        torch.from_numpy(np.array(without_torch)), fast(pictures), rtol=1e-3, atol=1e-3
    )


def test_ultralytics_validates_and_predicts_with_the_converted_network(yolo_run):
    run, summary = yolo_run
    converted = integration.as_yolo(run / "model.safetensors")
    metrics = integration.evaluate(converted, run / "data.yaml", yolo.SIZE)
    assert 100 * metrics.box.map == pytest.approx(summary["map"], abs=0.1)
    pictures = sorted((run.parent / "data" / "shapes" / "images" / "val").glob("*.png"))[:6]
    masked = YOLO(run / "weights" / "best.pt")
    options = {"imgsz": yolo.SIZE, "rect": False, "conf": 0.1, "verbose": False}
    found = 0
    for ours, theirs in zip(
        converted.predict(pictures, **options), masked.predict(pictures, **options), strict=True
    ):
        torch.testing.assert_close(ours.boxes.data, theirs.boxes.data, rtol=1e-3, atol=1e-2)
        found += len(ours)
    assert found > 0 and converted.names == {0: "disc", 1: "square", 2: "triangle"}


def test_detector_without_ultralytics_finds_the_same_boxes(yolo_run):
    from PIL import Image

    run, _ = yolo_run
    detector = Detector(run / "model.safetensors", confidence=0.1)
    converted = integration.as_yolo(detector.network)
    for path in sorted((run.parent / "data" / "shapes" / "images" / "val").glob("*.png"))[:4]:
        picture = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
        theirs = converted.predict(path, conf=0.1, verbose=False)[0].boxes
        ours = detector(picture)
        torch.testing.assert_close(ours.boxes, theirs.xyxy, rtol=0, atol=0.05)
        torch.testing.assert_close(ours.scores, theirs.conf, rtol=0, atol=0.005)
        assert torch.equal(ours.classes, theirs.cls.long())


def test_command_converts_a_run_for_several_sizes(yolo_run, tmp_path, capsys):
    from semisparse.cli import main
    from semisparse.train.detect import is_detector

    run, _ = yolo_run
    output = tmp_path / "model.safetensors"
    with pytest.raises(SystemExit) as end:
        main(["convert", str(run), "-o", str(output), "--size", "96", "--size", "64"])
    assert end.value.code == 0, capsys.readouterr().err
    fast = ss.load(output)
    assert fast.sizes == ((96, 96), (64, 64)) and fast.info["masks"] == {
        "96x96": "exact",
        "64x64": "resample",
    }
    assert is_detector(run / "weights" / "best.pt") and not is_detector(output) and not is_detector(tmp_path)


# -- conversion of the families ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "end2end"), [("yolov5n", False), ("yolov8n", False), ("yolo11n", False), ("yolo26n", True)]
)
def test_whole_networks_are_converted(name, end2end):
    model = randomize(YOLO(f"{name}.yaml").model)
    if end2end:
        model.end2end = True
    impose(model, 64)
    other = {"yolov8n": [(32, 96)]}.get(name, [])  # one family at another size: conversion takes its time
    fast = integration.convert(model, [64, *other])
    assert fast.info["masks"] == {"64x64": "exact"} | {f"{h}x{w}": "resample" for h, w in other}
    assert all(layer.packed for layer in fast.layers)
    names = dict(model.named_modules())
    assert all(layer.name in names for layer in fast.layers)
    fused = [layer for layer in fast.layers if layer.activation == "silu" and layer.batch_norm]
    assert len(fused) > 0.6 * len(fast.layers) and sum(x.column_sparsity > 0.1 for x in fast.layers) >= 20
    for size in fast.sizes:
        x = torch.rand(2, 3, *size)
        with torch.no_grad():
            expected, ours = model(x)[0], fast(x)
        if end2end:  # of equal scores, either may come first
            expected, ours = (y[..., 4].sort(1).values for y in (expected, ours))
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_resampled_and_dense_sizes_and_one_file(tmp_path):
    model = randomize(YOLO(yolo.network(tmp_path)).model)
    dense = copy.deepcopy(model)
    impose(model, 64)
    x = torch.rand(1, 3, 96, 64)
    fast = integration.convert(model, [64, (96, 64)], other_sizes="dense")
    torch.testing.assert_close(fast(x), dense(x)[0], rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="masks belong to one input size"):
        integration.convert(model, (96, 64), other_sizes="refuse")
    ss.save(fast, tmp_path / "model.safetensors")
    loaded = ss.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded(x), fast(x)) and loaded.info == fast.info
    with pytest.raises(ValueError, match="64 x 64, 96 x 64"):
        loaded(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="stride, 32"):
        integration.convert(model, 100)


def test_rectangles_are_padded_to_the_converted_size(tmp_path):
    model = randomize(YOLO(yolo.network(tmp_path)).model)
    converted = integration.as_yolo(integration.convert(impose(model, 64), 64))
    picture = torch.randint(0, 255, (40, 80, 3), dtype=torch.uint8).numpy()
    assert len(converted.predict(picture, verbose=False, rect=True)) == 1
    with pytest.raises(ValueError, match="64 x 64"):
        converted.predict(picture, verbose=False, imgsz=96)


def test_fusing_keeps_what_masked_columns_hold(tmp_path):
    model = impose(
        randomize(integration.SparseDetectionModel(str(yolo.network(tmp_path)), verbose=False)), 64
    )
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)[0]
        fused = pickle.loads(pickle.dumps(model)).fuse(verbose=False)
        torch.testing.assert_close(fused(x)[0], expected, rtol=1e-4, atol=1e-3)
    norms = [module for module in fused.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == len(masking.masked_modules(model))


# -- training ------------------------------------------------------------------------------------------------
def test_average_and_checkpoints_hold_the_masks(train, tmp_path):
    detector = train()
    best = integration.load(tmp_path / "run" / "weights" / "best.pt")
    assert isinstance(best, integration.SparseDetectionModel)
    assert best.sparsity["recipe"] == detector.trainer.recipe.to_dict()
    masks = masking.masked_modules(best)
    assert len(masks) == 10 and not any(name.endswith(("dfl.conv", ".2")) for name in masks)
    for name, mask in detector.trainer.sparsifier.masks().items():
        assert torch.equal(masking.column_mask(masks[name]), mask) and not mask.all()
    assert integration.progress(tmp_path / "run" / "weights" / "last.pt") == (None, best.sparsity["recipe"])
    assert not list((tmp_path / "run" / "weights").glob(".*"))  # temporary files


def test_training_on_keeps_masks_that_are_what_is_asked_for(train, tmp_path):
    masks = train(epochs=1).trainer.sparsifier.masks()
    last = tmp_path / "run" / "weights" / "last.pt"
    again = train(model=YOLO(last), epochs=1, name="again").trainer.sparsifier.masks()
    assert again.keys() == masks.keys() and all(torch.equal(again[name], masks[name]) for name in masks)


@pytest.mark.parametrize("recipe", ["pattern+connectivity-8x", "pattern+columns", "punched", "mixed"])
def test_shipped_recipes_with_weights(train, tmp_path, recipe):
    sparsifier = train(recipe, epochs=3).trainer.sparsifier
    network = integration.load(tmp_path / "run")
    removed = sparsifier.weight_masks()
    assert removed and not any(name.endswith(("dfl.conv", "cv2.0.2", "cv3.0.2")) for name in removed)
    for name, mask in removed.items():
        assert not mask.all() and not network.get_submodule(name).weight[~mask].any()
    assert len(masking.masked_modules(network)) == len(sparsifier.masks())
    fast, x = integration.convert(network), torch.rand(2, 3, 64, 64)
    assert sum(layer.weight_sparsity > 0.3 for layer in fast.layers) >= 8
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x)[0], rtol=1e-3, atol=1e-3)


def test_statistics_follow_a_removal_at_the_very_end(train, monkeypatch):
    counts = []
    monkeypatch.setattr(
        integration, "reestimate", lambda model, batches, count: counts.append(len(list(batches)))
    )
    trained = train({"_default": {"scheme": "unstructured", "ratio": 0.5, "begin": 0.0, "end": 1.0}})
    assert counts == [len(trained.trainer.train_loader)]


def test_only_epochs_at_full_sparsity_become_best(train, monkeypatch):
    fitness = iter([0.9, 0.2, 0.1])  # full sparsity is reached in the second epoch

    def validate(trainer):
        value = next(fitness)
        if trainer.best_fitness is None or trainer.best_fitness < value:
            trainer.best_fitness = value
        return dict.fromkeys(trainer.metrics, 0.0), value

    monkeypatch.setattr(integration.DetectionTrainer, "validate", validate)
    trainer = train(epochs=4, patience=1).trainer
    assert trainer.best_fitness == 0.2 and trainer.stopper.best_epoch == 2 and trainer.epoch == 2


def test_pictures_stay_in_their_place_where_columns_are_removed(data, tmp_path):
    settings = {"data": str(data), "model": str(yolo.network(tmp_path)), "project": str(tmp_path)}

    def arguments(recipe, **options):
        args = integration.SparseDetectionTrainer(overrides={**settings, "recipe": recipe, **options}).args
        return args.mosaic, args.scale, args.translate, args.fliplr

    assert arguments("pattern") == (1.0, 0.5, 0.1, 0.5)  # Ultralytics' own values
    assert arguments("columns20") == (0, 0, 0, 0.5)
    assert arguments("pattern+columns", scale=0.2) == (0, 0.2, 0, 0.5)


def test_penalty_reaches_the_weights(train, monkeypatch):
    name = "model.1.conv.weight"
    start = {}

    def penalty(sparsifier):
        weight = sparsifier.model.get_parameter(name)
        start.setdefault(name, weight.detach().clone())
        return 1e4 * weight.square().sum()

    monkeypatch.setattr(ss.train.Sparsifier, "penalty", penalty)
    detector = train(optimizer="SGD", lr0=0.01, warmup_epochs=0)
    after = integration._unwrap(detector.trainer.model).get_parameter(name)
    assert after.norm() < 0.99 * start[name].norm()


@pytest.mark.parametrize(("nbs", "batch", "warmup"), [(8, 8, 0), (8, 4, 1), (16, 4, 2), (16, 2, 0.5)])
def test_schedule_counts_the_steps_that_are_taken(train, nbs, batch, warmup):
    detector = train(nbs=nbs, batch=batch, warmup_epochs=warmup, epochs=3, val=False)
    sparsifier = detector.trainer.sparsifier
    assert sparsifier.steps == sparsifier.total_steps


def test_distributed_processes_get_the_recipe(data, tmp_path):
    settings = {
        "data": str(data),
        "imgsz": 64,
        "project": str(tmp_path),
        "model": str(yolo.network(tmp_path)),
    }
    parent = integration.SparseDetectionTrainer(overrides={**settings, "recipe": "columns20"})
    from ultralytics.utils import DEFAULT_CFG_DICT

    # What Ultralytics' generated script does in each process.
    config = {**DEFAULT_CFG_DICT, "save_dir": ""}
    child = integration.SparseDetectionTrainer(
        cfg=config, overrides=pickle.loads(pickle.dumps(vars(parent.args)))
    )
    assert child.recipe == parent.recipe == Recipe.load("columns20")
    assert child.args.mosaic == parent.args.mosaic == 0
    assert pickle.loads(pickle.dumps(type(parent))) is type(child)


def test_distillation_trains_the_student_only(train, tmp_path):
    teacher = tmp_path / "teacher.pt"
    detector = YOLO(yolo.network(tmp_path))
    detector.model.args = {"imgsz": 64}
    detector.save(teacher)
    trained = train(distill_model=str(teacher)).trainer.model
    assert isinstance(trained, integration.OutputDistillation)
    taught, saved = trained.teacher_model.state_dict(), integration.load(teacher).state_dict()
    assert all(torch.equal(taught[name], value) for name, value in saved.items())
    student = integration.load(tmp_path / "run")
    assert len(masking.masked_modules(student)) == 10
    assert sum(p.numel() for p in student.parameters()) == sum(p.numel() for p in detector.model.parameters())
    integration.convert(tmp_path / "run")


def test_mixed_precision_on_a_cpu_is_bfloat16_and_only_in_training(train):
    assert train().trainer.args.amp is False  # unless it is asked for
    network = train(amp=True).trainer.network
    seen = {}
    handle = network.model[0].conv.register_forward_hook(lambda module, x, y: seen.update(dtype=y.dtype))
    images = torch.rand(2, 3, 64, 64)
    outputs = network.train()(images)
    assert seen["dtype"] == torch.bfloat16
    assert outputs["boxes"].dtype == outputs["scores"].dtype == torch.float32
    network.eval()(images)
    assert seen["dtype"] == torch.float32
    handle.remove()
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("head", ["Detect", "v10Detect"])
def test_distillation_is_the_distance_of_outputs_and_features(head, tmp_path):
    network = tmp_path / f"{head}.yaml"
    network.write_text(yolo.NETWORK.replace("Detect", head))
    torch.manual_seed(0)
    teacher = randomize(YOLO(network).model)
    nn.init.zeros_(teacher.model[-1].cv3[0][-1].bias)  # objects are not improbable
    student = copy.deepcopy(teacher)
    student.args = integration.DEFAULT_CFG
    student.requires_grad_(True)
    pair = integration.OutputDistillation(teacher, student)
    labels = {"batch_idx": torch.tensor([0.0, 1.0]), "cls": torch.tensor([[0.0], [2.0]])}
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.6, 0.2, 0.5]])
    batch = {"img": torch.rand(2, 3, 64, 64), "bboxes": boxes, **labels}

    def distance():
        pair.train()
        for module in student.modules():  # statistics of the batch would differ from the teacher's
            module.training &= not isinstance(module, nn.BatchNorm2d)
        loss, items = pair(batch)
        assert loss.shape == (4,) and loss[-1].item() == pytest.approx(2 * items["dis_loss"].item())
        return loss[-1]

    assert distance().item() == pytest.approx(0, abs=1e-4)
    weights = [student.model[1].conv.weight, student.model[6].cv3[0][-1].weight]
    with torch.no_grad():
        for weight in weights:
            weight += weight.std() * torch.randn_like(weight)
    before = distance()
    before.backward()
    with torch.no_grad():
        for weight in weights:
            weight -= 1e-3 * weight.norm() * weight.grad / weight.grad.norm()
    assert 3e-4 < distance().item() < before.item()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_distillation_is_resumed(train, tmp_path):
    teacher = YOLO(yolo.network(tmp_path))
    teacher.model.args = {"imgsz": 64}
    (tmp_path / "dense" / "weights").mkdir(parents=True)
    teacher.save(tmp_path / "dense" / "weights" / "best.pt")
    interrupted = YOLO(yolo.network(tmp_path))
    interrupted.add_callback("on_model_save", stop_after_saving)
    with pytest.raises(InterruptedError):
        train(model=interrupted, val=False, distill_model=str(tmp_path / "dense"), amp=True)
    resumed = YOLO(tmp_path / "run" / "weights" / "last.pt")
    resumed.train(trainer=integration.SparseDetectionTrainer, resume=True, val=False)
    assert isinstance(resumed.trainer.model, integration.OutputDistillation)
    assert resumed.trainer.network.mixed_precision
    assert resumed.trainer.sparsifier.finalized


@pytest.mark.parametrize(
    ("teacher", "message"),
    [("yolov8n.yaml", "knows 80 classes, the data has 3"), ("yolov10n.yaml", "2 branches, the student's 1")],
)
def test_teachers_with_other_outputs_are_refused(train, tmp_path, teacher, message):
    model = integration.DetectionModel(teacher, nc=80 if "v8" in teacher else 3, verbose=False)
    model.args = {"imgsz": 64}
    detector = YOLO(teacher)
    detector.model = model
    detector.save(tmp_path / "teacher.pt")
    with pytest.raises(ValueError, match=message):
        train(distill_model=str(tmp_path / "teacher.pt"))


# -- what is refused -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (None, {}, "needs a recipe"),
        ({"model.99.conv": {"columns": {"ratio": 0.2}}}, {}, "model.99.conv"),
        ("no-such-recipe", {}, "shipped"),
        (COLUMNS, {"multi_scale": 0.5}, "multi_scale"),
        (COLUMNS, {"time": 1.0}, "time"),
    ],
)
def test_bad_recipes_and_options_fail_before_training(train, recipe, options, message):
    with pytest.raises(ValueError, match=message):
        train(recipe, **options)


def test_other_tasks_are_refused(train, tmp_path):
    for name in ("yolov8n-seg.yaml", "yolov8n-cls.yaml"):
        with pytest.raises(ValueError, match="not a YOLO detector"):
            integration.open_yolo(name)
        with pytest.raises(ValueError, match="not a YOLO detector"):
            integration.convert(YOLO(name))
    with pytest.raises(ValueError, match="not a YOLO detector"):
        train(model=YOLO("yolov8n-seg.yaml"), task="detect")
    with pytest.raises(ValueError, match="neither a checkpoint"):
        integration.convert(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="no converted detector"):
        integration.as_yolo(
            ss.SizedModel([ss.convert(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8), free_size=False)])
        )


def test_resuming_without_a_recipe_is_refused(data, tmp_path):
    settings = dict(
        data=str(data), imgsz=64, epochs=2, batch=8, project=str(tmp_path), name="dense", plots=False
    )
    dense = YOLO(yolo.network(tmp_path))
    dense.add_callback("on_model_save", stop_after_saving)
    with pytest.raises(InterruptedError):
        dense.train(**settings, exist_ok=True, val=False, verbose=False)
    last = tmp_path / "dense" / "weights" / "last.pt"
    assert integration.progress(last) == (1, None)
    with pytest.raises(ValueError, match="without a recipe"):
        YOLO(last).train(trainer=integration.SparseDetectionTrainer, resume=True)


def test_resuming_with_another_recipe_is_refused(train, tmp_path, monkeypatch):
    interrupted = YOLO(yolo.network(tmp_path))
    interrupted.add_callback("on_model_save", stop_after_saving)
    with pytest.raises(InterruptedError):
        train(model=interrupted, val=False)
    last = tmp_path / "run" / "weights" / "last.pt"
    assert integration.progress(last) == (1, Recipe(COLUMNS).to_dict())
    with pytest.raises(ValueError, match="differs"):
        YOLO(last).train(trainer=integration.SparseDetectionTrainer, resume=True, recipe="columns20")


def stop_after_saving(trainer):
    raise InterruptedError


def test_branches_that_are_merged_stay_dense():
    model = YOLO("yolov9t.yaml").model
    merged = [name for name, module in model.named_modules() if isinstance(module, integration.RepConv)]
    recipe = integration.skips_for_detection(Recipe(COLUMNS), model)
    assert merged and not any(name.startswith(tuple(merged)) for name in recipe.resolve(model))
    with pytest.raises(ValueError, match="merged for deployment"):
        integration.skips_for_detection(
            Recipe({f"{merged[0]}.conv1.conv": {"columns": {"ratio": 0.2}}}), model
        )
