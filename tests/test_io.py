"""One safetensors file, no pickle: round trips, damage, and files that mean harm."""

import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import semisparse as ss
from semisparse import masking, runtime
from semisparse.container import Contents
from semisparse.converted import ConvertedModel
from semisparse.graph import Graph
from semisparse.runtime.plan import SENSELESS


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    model[1].running_mean.normal_()
    masking.attach_column_mask(model[0], torch.rand(6, 8) > 0.3)
    return ss.convert(model, torch.randn(1, 2, 6, 8))


X = torch.randn(2, 2, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(network, tmp_path):
    ss.save(network, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.arm
def test_round_trip(network, path):
    loaded = ss.load(path)
    assert torch.equal(loaded(X), network(X))
    assert loaded.layers == network.layers
    ss.save(loaded, path)  # over itself, and the same bytes
    first = path.read_bytes()
    ss.save(ss.load(path), path)
    assert path.read_bytes() == first


def test_fresh_process_without_the_model_class(network, path):
    torch.save(X, path.with_name("x.pt"))
    code = (
        "import sys, semisparse, torch\n"
        f"model = semisparse.load({str(path)!r})\n"
        f"y = model(torch.load({str(path.with_name('x.pt'))!r}))\n"
        f"torch.save(y, {str(path.with_name('y.pt'))!r})\n"
        "print(sorted(m for m in ('torchvision', 'semisparse.convert') if m in sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
    assert torch.equal(torch.load(path.with_name("y.pt"), weights_only=True), network(X))


def test_saving_is_atomic(network, path, monkeypatch):
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        ss.save(network, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_only_converted_models_are_saved(tmp_path):
    with pytest.raises(ValueError, match="is a Linear; use semisparse.convert"):
        ss.save(nn.Linear(1, 1), tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_operators_outside_of_the_vocabulary_are_not_saved(tmp_path):
    class Sorting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return torch.linalg.matrix_exp(self.conv(x))

    fast = ss.convert(Sorting(), torch.randn(2, 2, 3, 3))
    with pytest.raises(ValueError, match="linalg_matrix_exp.*cannot be saved"):
        ss.save(fast, tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        ss.load(tmp_path / "nothing.safetensors")
    with pytest.raises(OSError):
        ss.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 100, b"PK\x03\x04" + b"\0" * 100, b"{}"])
def test_foreign_files(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="not a usable semisparse model"):
        ss.load(tmp_path / "x")


def test_plain_safetensors(tmp_path):
    safetensors.torch.save_file({"w": torch.zeros(3)}, tmp_path / "x", {"format": "pt"})
    with pytest.raises(ValueError, match="metadata has no 'graph'.*Convert the model"):
        ss.load(tmp_path / "x")


def by_torch(path, x):
    with torch.inference_mode():
        return ss.load(path)(x)


def by_numpy(path, x):
    return torch.from_numpy(runtime.load(path)(x.numpy()))


@pytest.mark.parametrize("run", [by_torch, by_numpy])
def test_truncations_are_refused(run, path, tmp_path):
    content = path.read_bytes()
    cuts = {0, 1, 7, 8, 9, len(content) - 1, *random.Random(0).sample(range(len(content)), 60)}
    for cut in cuts:
        (tmp_path / "x").write_bytes(content[:cut])
        with pytest.raises(ValueError, match="not a usable semisparse model"):
            run(tmp_path / "x", X)


@pytest.mark.parametrize("run", [by_torch, by_numpy])
def test_every_changed_byte_is_noticed(run, path, tmp_path):
    content, generator = path.read_bytes(), random.Random(0)
    expected = run(path, X)
    refused = 0
    for position in [*range(24), *generator.sample(range(len(content)), 300)]:
        changed = bytearray(content)
        changed[position] ^= generator.randrange(1, 256)
        (tmp_path / "x").write_bytes(changed)
        try:
            found = run(tmp_path / "x", X)
        except ValueError as error:
            assert "not a usable semisparse model" in str(error)
            refused += 1
            continue
        # Only where the change means nothing, such as white space of the header.
        assert torch.equal(found, expected)
    assert refused >= 300


def rewrite(path, change):
    """Write the file again with a changed graph document and correct checksums, as an attacker would."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    entry = json.loads(content[8 : 8 + size])["__metadata__"]["graph"]
    document = json.loads(entry.partition("\n")[2])
    tensors = safetensors.torch.load(content)
    change(document, tensors)
    text = json.dumps(document)
    entry = f"{zlib.crc32(text.encode()):08x}\n{text}"
    path.write_bytes(safetensors.torch.save(tensors, {"graph": entry}))


def node(document, op):
    return next(n for n in document["nodes"] if n["op"] == op)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d, t: d["nodes"][0].update(op="os.system"), "'os.system', which is not in the vocabulary"),
        (lambda d, t: d["nodes"][0].update(op="builtins.exec"), "not in the vocabulary"),
        (lambda d, t: d["nodes"][0].update(name="x=__import__('os')"), "expected letters"),
        (lambda d, t: d["inputs"][0].update(name="x=print(1)"), "expected letters"),
        (lambda d, t: d["nodes"][0]["kwargs"].update({"mask=1,x": 1}), "expected letters"),
        (lambda d, t: d["nodes"][0]["kwargs"].update(nonsense=1), "does not fit its schema"),
        (lambda d, t: node(d, "semisparse.max_pool2d.default").update(args=[]), "does not fit its schema"),
        (
            lambda d, t: node(d, "semisparse.max_pool2d.default").update(op="operator.getitem"),
            "operator.getitem with",
        ),
        (lambda d, t: d.update(version=99), "newer semisparse"),
        (lambda d, t: t.pop("layer_0_packed"), "is missing"),
        (lambda d, t: t.update(more=torch.zeros(1)), "'more' that the graph does not declare"),
        (lambda d, t: t.update(layer_0_fill=torch.zeros(4, dtype=torch.float64)), "checksum"),
        (
            lambda d, t: (
                t.update(layer_0_fill=torch.zeros(5)),
                d["tensors"]["layer_0_fill"].update(crc32=None),
            ),
            "declared as",
        ),
    ],
)
def test_hostile_files_are_refused(path, change, message):
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        ss.load(path)


def declare(document, tensors):
    """Make the declarations agree with the tensors again."""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        document["tensors"][name] = {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "crc32": zlib.crc32(raw),
        }


VALUES = [0, -1, 1, 3, 100, 2**31, 2**40, 2**62, -(2**62), None, True, 1.5, "relu", [], [1], [0, 0], [-1, -1]]
VALUES += [
    [2**62, 2**62],
    [1, 2, 3],
    {"node": "input"},
    {"tensor": "layer_0_mask"},
    {"tensor": "layer_7_bias"},
]


def places_of(document):
    """Where arguments are: containers and keys, those of lists inside of arguments too."""
    places = [(n["args"], i) for n in document["nodes"] for i in range(len(n["args"]))]
    places += [(n["kwargs"], key) for n in document["nodes"] for key in n["kwargs"]]
    return places + [
        (a, i) for n in document["nodes"] for a in n["args"] if isinstance(a, list) for i in range(len(a))
    ]


def test_senseless_arguments_never_crash(network):
    """A thousand graphs with arguments exchanged. torch and numpy refuse them when they are built or run, or
    run them: then both compute the same, which neither would if it read or wrote where it must not."""
    text = network.graph.to_json("test")
    tensors, generator = dict(network.named_buffers()), random.Random(0)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    outcomes = Counter()
    for _ in range(1000):
        document = json.loads(text)
        places = places_of(document)
        for _ in range(generator.choice([1, 1, 2])):
            place, key = generator.choice(places)
            place[key] = generator.choice(VALUES)
        found = {}
        try:
            graph = Graph.from_json(json.dumps(document))
        except ValueError:
            outcomes["no graph"] += 1
            continue
        try:
            with torch.inference_mode():
                found["torch"] = ConvertedModel(graph, tensors)(X)
        except (ValueError, RuntimeError, TypeError, IndexError, NotImplementedError):
            pass
        try:
            found["numpy"] = runtime.Network(Contents((graph,)), arrays)(X.numpy())
        except SENSELESS:
            pass
        outcomes[" and ".join(found) or "neither"] += 1
        if len(found) == 2:
            assert found["numpy"].shape == tuple(found["torch"].shape)
            np.testing.assert_allclose(found["numpy"], found["torch"].numpy(), rtol=1e-4, atol=1e-4)
    assert outcomes["torch and numpy"] >= 30 and outcomes["neither"] >= 400, outcomes
    assert all(torch.equal(tensors[name], copy) for name, copy in copies.items())


# Of the converted network: operator, place among its arguments or keyword, value, what the message names.
REFUSED = [
    ("semisparse.conv2d.packed", 2, [5, 2, 3, 3], "shape .*5"),
    ("semisparse.conv2d.packed", 2, [4, 2**62, 3, 3], "4611686018427387904"),
    ("semisparse.conv2d.packed", 4, [0, 1], "stride"),
    ("semisparse.conv2d.packed", 4, [1, -1], "stride"),
    ("semisparse.conv2d.packed", 5, [-1, 1], "padding"),
    ("semisparse.conv2d.packed", 5, [2**40, 1], "padding"),
    ("semisparse.conv2d.packed", 5, [0, 0], "mask"),
    ("semisparse.conv2d.packed", 6, [0, 0], "dilation"),
    ("semisparse.conv2d.packed", 6, [2**40, 1], "dilation|too small|smaller"),
    ("semisparse.conv2d.packed", 7, 0, "groups"),
    ("semisparse.conv2d.packed", 7, 2, "groups"),
    ("semisparse.conv2d.packed", "activation", "tanh", "activation"),
    ("semisparse.conv2d.packed", "fill", {"tensor": "layer_0_mask"}, "fill"),
    ("semisparse.conv2d.packed", "mask", {"tensor": "layer_0_fill"}, "mask"),
    ("semisparse.conv2d.packed", "residual", {"node": "input"}, "residual"),
    ("semisparse.max_pool2d.default", 1, [0, 2], "kernel_size"),
    ("semisparse.max_pool2d.default", 1, [100, 2], "kernel"),
    ("semisparse.max_pool2d.default", 2, [-1, 2], "stride"),
    ("semisparse.linear.default", 2, [3, 5], "weight_shape|features|shape"),
]


@pytest.mark.parametrize("op, place, value, message", REFUSED)
def test_arguments_out_of_range_are_refused(network, op, place, value, message):
    """By both runtimes, with what is wrong in the message."""
    document = json.loads(network.graph.to_json("test"))
    changed = node(document, op)
    container = changed["kwargs"] if isinstance(place, str) else changed["args"]
    container[place] = value
    graph = Graph.from_json(json.dumps(document))
    tensors = dict(network.named_buffers())
    with pytest.raises((ValueError, RuntimeError), match=message), torch.inference_mode():
        ConvertedModel(graph, tensors)(X)
    with pytest.raises(ValueError, match=message):
        runtime.Network(Contents((graph,)), {name: t.numpy() for name, t in tensors.items()})(X.numpy())


@settings(max_examples=60)
@given(st.data())
def test_changed_tensors_with_right_checksums(network, tmp_path_factory, data):
    """Packed weights have checks of their own; other tensors hold numbers, and any number will do."""
    path = tmp_path_factory.mktemp("changed") / "model.safetensors"
    ss.save(network, path)
    changed = set()

    def change(document, tensors):
        before = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
        for _ in range(data.draw(st.integers(1, 3))):
            name = data.draw(st.sampled_from(sorted(tensors)))
            raw = tensors[name].clone().reshape(-1).view(torch.uint8)
            bits = data.draw(st.integers(1, 1 if tensors[name].dtype == torch.bool else 255))
            raw[data.draw(st.integers(0, raw.numel() - 1))] ^= bits
            tensors[name] = raw.view(tensors[name].dtype).reshape(tensors[name].shape)
        changed.update(name for name, old in before.items() if tensors[name].numpy().tobytes() != old)
        declare(document, tensors)

    rewrite(path, change)
    packed = any(name.endswith("packed") for name in changed)
    for run in (by_torch, by_numpy):
        if packed:
            with pytest.raises(ValueError):
                run(path, X)
        else:
            assert run(path, X).shape == (2, 3)


def test_text_in_arguments_is_never_code(path):
    def change(document, tensors):
        document["nodes"][0]["kwargs"]["activation"] = "none')+__import__('os').system('x')+('"

    rewrite(path, change)
    with pytest.raises(ValueError, match="activation"):
        ss.load(path)(X)


def test_consistent_but_senseless_tensors_are_refused_when_run(path):
    """Packed weights and masks that pass every check of the file still meet the operators' own."""

    def foreign_weights(document, tensors):
        for name, tensor in list(tensors.items()):
            if name.endswith("packed"):
                tensors[name] = torch.arange(tensor.numel(), dtype=torch.uint8)
        declare(document, tensors)

    rewrite(path, foreign_weights)
    with pytest.raises(ValueError, match="pack"):
        ss.load(path)(X)

    def small_mask(document, tensors):
        for name in tensors:
            if name.endswith("mask"):
                tensors[name] = torch.ones(2, 2, dtype=torch.bool)
        declare(document, tensors)

    rewrite(path, small_mask)
    with pytest.raises((RuntimeError, ValueError), match="mask"):
        ss.load(path)(X)
