"""Tuning: what was measured decides, the file beside the model carries it, load applies it."""

import dataclasses
import json
import shutil

import pytest
import torch
from torch import nn

import semisparse as ss
from semisparse import tuning
from semisparse.stepwise import input_sizes
from semisparse.tuning_file import LayerTuning, Tuning, tuning_path


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 8, 1),
    ).eval()  # fmt: skip
    return ss.convert(model, torch.randn(1, 3, 24, 24), free_size=False)


@pytest.fixture
def file(network, tmp_path):
    ss.save(network, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def algorithms_of(model, size=24):
    """What runs at present, by layer."""
    found = ss.explain(model, torch.randn(1, 3, size, size), rounds=1)
    return {layer.name: layer.algorithm for layer in found.layers}


def forget(model):
    tuning._forget(model, input_sizes(model, [torch.randn(1, 3, 24, 24)]))


def test_layers_with_a_choice_are_measured_on_every_algorithm(network):
    found = ss.tune(network, torch.randn(1, 3, 24, 24), threads=1, rounds=2)
    layers = {layer.layer: layer for layer in found.layers}
    assert {"2", "4"} <= set(layers) <= {"0", "2", "4", "5"}
    defaults = algorithms_of(network)
    for name, layer in layers.items():
        assert len(layer.ms) > 1 and all(ms > 0 for ms in layer.ms.values())
        winograd = {algorithm for algorithm in layer.ms if algorithm.startswith("winograd")}
        assert winograd == ({"winograd4", "winograd2"} if name in ("2", "4") else set())  # 3x3, stride 1
        assert layer.default == defaults[name]
        assert layer.input_size == ((24, 24) if name == "0" else (12, 12))
        if layer.algorithm != layer.default:
            assert layer.ms[layer.algorithm] < layer.ms[layer.default]
    assert found.threads == 1 and found.machine == tuning.machine()
    assert found.gain >= 1
    assert found.layers[0].layer in str(found) and found.summary() in str(found)
    assert algorithms_of(network) == defaults  # nothing is applied yet


def test_the_fastest_is_chosen(network, monkeypatch):
    wanted = {"2": "winograd2", "4": "im2col"}
    nodes = [node.name for node in network.graph.nodes]
    layers = {record.node: record.name for record in network.layers}

    def measured(variants, inputs, rounds):
        if "tuned" in variants:
            return {"default": dict.fromkeys(nodes, 2.0), "tuned": dict.fromkeys(nodes, 1.0)}
        return {
            name: {node: 0.5 if wanted.get(layers.get(node)) == name else 1.0 for node in nodes}
            for name in variants
        }

    monkeypatch.setattr(tuning, "time_steps", measured)
    found = ss.tune(network, torch.randn(1, 3, 24, 24))
    assert {x.layer: x.algorithm for x in found.layers if x.layer in wanted} == wanted
    assert all(x.algorithm == x.default for x in found.layers if x.layer not in wanted)
    assert found.gain == 2


def test_noise_does_not_choose(network, monkeypatch):
    nodes = [node.name for node in network.graph.nodes]

    def measured(variants, inputs, rounds):
        speeds = {"im2col": 0.99, "winograd2": 0.985, "tuned": 1.1}
        return {name: dict.fromkeys(nodes, speeds.get(name, 1.0)) for name in variants}

    monkeypatch.setattr(tuning, "time_steps", measured)
    found = ss.tune(network, torch.randn(1, 3, 24, 24))
    assert all(layer.algorithm == layer.default for layer in found.layers)
    assert found.gain == 1


def test_a_slower_network_keeps_the_defaults(network, monkeypatch):
    nodes = [node.name for node in network.graph.nodes]

    def measured(variants, inputs, rounds):
        speeds = {"im2col": 0.1, "winograd4": 0.2, "winograd2": 0.3, "tuned": 1.1}
        return {name: dict.fromkeys(nodes, speeds.get(name, 1.0)) for name in variants}

    monkeypatch.setattr(tuning, "time_steps", measured)
    found = ss.tune(network, torch.randn(1, 3, 24, 24))
    assert all(layer.algorithm == layer.default for layer in found.layers)
    assert found.ms == found.ms_default


def chosen(network, names, threads=1, machine=None):
    """A tuning that wants `names` of the two 3x3 layers of stride 1."""
    sizes = input_sizes(network, [torch.randn(1, 3, 24, 24)])
    wanted = dict(zip(("2", "4"), names, strict=True))
    layers = [
        LayerTuning(layer, checksum, sizes[node], "im2col", wanted[layer], {wanted[layer]: 1.0})
        for node, layer, checksum in tuning._tunable(network, sizes)
        if layer in wanted
    ]
    return Tuning(machine or tuning.machine(), threads, tuple(layers), 2.0, 1.0)


@pytest.mark.parametrize("names", [("winograd2", "winograd4"), ("im2col", "winograd2")])
def test_load_applies_the_tuning_of_this_machine(network, file, names):
    tuning.write(file, chosen(network, names))
    tuned = ss.load(file)
    try:
        now = algorithms_of(tuned)
        assert (now["2"], now["4"]) == names
        x = torch.randn(1, 3, 24, 24)
        with torch.inference_mode():
            after = tuned(x)
            forget(tuned)
            torch.testing.assert_close(after, network(x), rtol=1e-4, atol=1e-5)
    finally:
        forget(tuned)
    content = file.read_bytes()
    tuning_path(file).unlink()
    ss.save(ss.load(file), file)
    assert file.read_bytes() == content  # nothing of it is in the weights


def test_the_numpy_runtime_follows_it_too(network, file):
    x = torch.randn(1, 3, 24, 24).numpy()
    results = {}
    for name in ("im2col", "winograd2"):
        asked = chosen(network, (name, name))
        tuning.write(file, asked)
        results[name] = ss.runtime.load(file)(x)
    loaded = ss.runtime.load(file, tuned=False)
    assert (
        loaded(x) == results["winograd2"]
    ).all()  # what is preferred holds for all weights of equal content
    layers = tuple(dataclasses.replace(layer, algorithm="im2col") for layer in asked.layers)
    assert loaded.prefer(dataclasses.replace(asked, layers=layers)) == 2
    assert (loaded(x) == results["im2col"]).all()
    automatic = tuple(dataclasses.replace(layer, algorithm="automatic") for layer in asked.layers)
    loaded.prefer(dataclasses.replace(asked, layers=automatic))
    # Other sums, so other rounding.
    assert (results["im2col"] != results["winograd2"]).any()
    assert abs(results["im2col"] - results["winograd2"]).max() < 1e-4


def test_load_can_leave_the_tuning_alone(network, file):
    default = algorithms_of(network)
    tuning.write(file, chosen(network, ("winograd2", "winograd2")))
    assert algorithms_of(ss.load(file, tuned=False)) == default


def test_other_machines_and_other_weights_are_not_concerned(network, file, tmp_path):
    default = algorithms_of(network)
    tuning.write(file, chosen(network, ("winograd2", "winograd2"), machine="another"))
    assert tuning.read(file, 1) is None
    assert algorithms_of(ss.load(file)) == default
    torch.manual_seed(1)
    other = ss.convert(nn.Conv2d(3, 8, 3, padding=1), torch.randn(1, 3, 24, 24))
    assert tuning.apply(other, chosen(network, ("winograd2", "winograd2"))) == 0


def test_entries_of_machines_and_thread_counts_live_together(network, file):
    one, two = chosen(network, ("im2col", "im2col"), 1), chosen(network, ("im2col", "winograd2"), 2)
    other = chosen(network, ("im2col", "im2col"), 1, machine="another")
    for entry in (one, other, two):
        tuning.write(file, entry)
    assert tuning.read(file, 1) == one
    assert tuning.read(file, 2) == tuning.read(file, 16) == two
    again = dataclasses.replace(one, ms=0.5)
    tuning.write(file, again)
    assert tuning.read(file, 1) == again
    document = json.loads(tuning_path(file).read_text())
    assert sorted((t["machine"], t["threads"]) for t in document["tunings"]) == sorted(
        [(tuning.machine(), 1), (tuning.machine(), 2), ("another", 1)]
    )


def test_a_file_is_measured_once(file):
    first, measured = tuning.tune_file(file, threads=1, rounds=1)
    assert measured and tuning_path(file).exists()
    second, measured = tuning.tune_file(file, threads=1, rounds=1)
    assert not measured and second == first
    assert tuning.tune_file(file, threads=1, rounds=1, again=True)[1]
    moved = file.with_name("other.safetensors")
    shutil.copy(file, moved)
    assert tuning.tune_file(moved, threads=1, rounds=1)[1]
    forget(ss.load(file))


def test_sized_models_are_tuned_at_every_size(network, tmp_path):
    torch.manual_seed(0)
    small = ss.convert(nn.Conv2d(3, 16, 3, padding=1), torch.randn(1, 3, 16, 16), free_size=False)
    ss.save(ss.SizedModel([network, small]), tmp_path / "both.safetensors")
    found, _ = tuning.tune_file(tmp_path / "both.safetensors", threads=1, rounds=1)
    assert {layer.input_size for layer in found.layers} >= {(12, 12), (16, 16)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "no JSON",
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace("semisparse-tuning", "something"),
        lambda text: text.replace('"im2col"', '"im3col"'),
        lambda text: text.replace('"layers"', '"lawyers"'),
        lambda text: json.dumps([1, 2]),
    ],
)
def test_a_damaged_tuning_is_named_with_its_remedy(network, file, damage):
    tuning.write(file, chosen(network, ("im2col", "im2col")))
    path = tuning_path(file)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match="net.tuning.json is not a tuning .* delete it"):
        ss.load(file)
    assert ss.load(file, tuned=False) is not None


def test_what_cannot_be_tuned_is_refused(network, tmp_path):
    with pytest.raises(ValueError, match="takes a converted model, and this is a Conv2d"):
        ss.tune(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        ss.tune(network, torch.randn(1, 3, 24, 24), rounds=0)
    free = ss.convert(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8))
    ss.save(free, tmp_path / "free.safetensors")
    with pytest.raises(ValueError, match="images of any size; say which with --size"):
        tuning.tune_file(tmp_path / "free.safetensors")
    ss.save(network, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match="takes images of 24 x 24 pixels, and --size is 32"):
        tuning.tune_file(tmp_path / "net.safetensors", 32)
