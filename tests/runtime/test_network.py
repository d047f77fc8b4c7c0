"""Whole converted networks with numpy alone give what they give with torch."""

import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import torch
from conversions import Net, mask_randomly, randomise
from detector import Detector
from torch import nn

import semisparse as ss
from semisparse import runtime
from semisparse.sized import SizedModel


def compare(network, model, *inputs, rtol=2e-5):
    for scale in (1, -0.5, 1):  # the first call plans; later ones must find nothing of it
        scaled = [np.float32(scale) * x for x in inputs]
        with torch.inference_mode():
            expected = model(*map(torch.from_numpy, scaled)).numpy()
        found = network(*scaled)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.fixture
def save(tmp_path):
    def save(model):
        ss.save(model, tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return save


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    model = mask_randomly(randomise(Detector()), torch.randn(1, 3, 32, 64))
    return ss.convert(model, torch.randn(2, 3, 32, 64))


@pytest.mark.parametrize(
    "name, size", [("resnet18", 64), ("resnet50", 64), ("vgg16_bn", 32), ("mobilenet_v2", 64)]
)
def test_classifiers(name, size, save):
    from semisparse._torchvision import torchvision

    torch.manual_seed(0)
    model = randomise(getattr(torchvision.models, name)(num_classes=10))
    mask_randomly(model, torch.randn(1, 3, size, size))
    converted = ss.convert(model, torch.randn(2, 3, size, size))
    network = runtime.load(save(converted))
    for batch in (1, 2):
        compare(network, converted, images(batch, 3, size, size), rtol=1e-4)


@pytest.mark.arm
def test_detector(detector, save):
    network = runtime.load(save(detector))
    for batch in (1, 3, 1):
        compare(network, detector, images(batch, 3, 32, 64))
    assert network.layers == detector.layers


def test_concatenations_cost_nothing_at_batch_1(detector, save):
    """Their operands are computed in place; with more images there is something to copy."""
    network = runtime.load(save(detector))
    network(images(1, 3, 32, 64))
    network(images(2, 3, 32, 64))
    one, two = (plans[0] for plans in network._plans.values())
    joins = [node.name for node in detector.graph.nodes if node.op.startswith("aten.cat")]
    assert len(one._elided) >= 4 and one._elided < set(joins) | {"-"} and not two._elided


def test_memory_is_shared_by_liveness(save):
    """Twelve layers in a row take the memory of two results."""
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(12)))
    network = runtime.load(save(ss.convert(model, torch.randn(1, 8, 16, 16))))
    network(images(1, 8, 16, 16))
    assert network.arena_bytes() == 2 * 4 * 8 * 16 * 16


def test_an_input_is_read_wherever_it_is_an_argument(save):
    """First, as a residual, twice, as a view."""

    def function(self, x):
        y = self.conv(x[:, :, 1:]) + x[:, :, 1:]
        return torch.relu(self.conv(y) + x[:, :, 1:]) + x[:, :, :-1] * x[:, :, :-1]

    converted = ss.convert(Net(function, conv=nn.Conv2d(4, 4, 3, padding=1)), torch.randn(2, 4, 9, 8))
    network = runtime.load(save(converted))
    for batch in (1, 2):
        compare(network, converted, images(batch, 4, 9, 8))


def test_results_are_the_callers(detector, save):
    network = runtime.load(save(detector))
    x = images(1, 3, 32, 64)
    first = network(x)
    copy = first.copy()
    network(-x)
    assert np.array_equal(first, copy)


def test_outputs_in_structures_and_unchanged_inputs(save):
    def function(self, x):
        y = self.conv(x)
        return {"features": y, "same": x, "sum": (y + 1, y.flatten(1)[:, ::2])}

    model = Net(function, conv=nn.Conv2d(3, 4, 3))
    converted = ss.convert(model, torch.randn(2, 3, 9, 9))
    network = runtime.load(save(converted))
    for x in (images(1, 3, 9, 9), -images(1, 3, 9, 9)):
        expected, found = converted(torch.from_numpy(x)), network(x)
        assert list(found) == list(expected) and isinstance(found["sum"], tuple)
        assert np.array_equal(found["same"], x) and not np.shares_memory(found["same"], x)
        for a, b in zip(found["sum"], expected["sum"], strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_several_image_sizes_in_one_file(save):
    torch.manual_seed(0)
    model = randomise(Detector())
    models = [ss.convert(model, torch.randn(1, 3, *size), free_size=False) for size in ((32, 32), (64, 32))]
    sized = SizedModel(models, {"names": ["a", "b"]})
    network = runtime.load(save(sized))
    assert network.sizes == ((32, 32), (64, 32)) and network.info == {"names": ["a", "b"]}
    for height in (32, 64):
        compare(network, sized, images(1, 3, height, 32))
    with pytest.raises(ValueError, match=r"\(1, 3, 48, 32\).*sizes \[\(32, 32\), \(64, 32\)\]"):
        network(images(1, 3, 48, 32))


def test_several_python_threads_at_once(detector, save):
    network = runtime.load(save(detector))
    batches = [images(1, 3, 32, 64) * np.float32(k + 1) for k in range(4)]
    expected = [network(x) for x in batches]
    wrong = []

    def work(index):
        for _ in range(10):
            if not np.array_equal(network(batches[index]), expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.arm
def test_tensors_are_read_where_they_lie(detector, save):
    network = runtime.load(save(detector))
    x = torch.from_numpy(images(1, 3, 32, 64))
    expected = network(x.numpy())
    assert np.array_equal(network(x), expected)
    assert np.array_equal(network(x.contiguous(memory_format=torch.channels_last)), expected)
    assert np.array_equal(network(x.flip(3).numpy()[..., ::-1]), expected)  # negative strides are copied


def test_inputs_are_not_kept_alive(detector, save):
    network = runtime.load(save(detector))
    for _ in range(2):
        x = images(1, 3, 32, 64)
        network(x)
        owner = weakref.ref(x)
        del x
        assert owner() is None


@pytest.mark.arm
def test_any_number_of_threads_gives_the_same(detector, save):
    network, x = runtime.load(save(detector)), images(2, 3, 32, 64)
    before = runtime.get_num_threads()
    try:
        runtime.set_num_threads(1)
        expected = network(x)
        runtime.set_num_threads(3)
        assert np.array_equal(network(x), expected)
    finally:
        runtime.set_num_threads(before)


def test_torch_is_not_needed(detector, save):
    path = save(detector)
    program = (
        "import sys; import numpy as np; from semisparse import runtime\n"
        f"y = runtime.load({str(path)!r})(np.ones((1, 3, 32, 64), np.float32))\n"
        "print(y.shape, any(name.split('.')[0] == 'torch' for name in sys.modules))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["(1,", "7,", "160)", "False"]


class TestErrors:
    def test_an_operator_that_it_lacks_is_named(self, save):
        model = Net(lambda self, x: torch.cumsum(self.conv(x), 1), conv=nn.Conv2d(3, 4, 3))
        path = save(ss.convert(model, torch.randn(1, 3, 8, 8)))
        with pytest.raises(ValueError, match=r"aten\.cumsum\.default \(node .*semisparse\.load"):
            runtime.load(path)

    @pytest.mark.parametrize(
        "argument, message",
        [
            (np.zeros((1, 3, 32, 64)), r"float64; use x\.astype\(np\.float32\)"),
            ([[0.0]], "list; use np.asarray"),
            (torch.zeros(1, 3, 32, 64, requires_grad=True), "Tensor .*gradient.*; use np.asarray"),
            (torch.zeros(1, 3, 32, 64, dtype=torch.bfloat16), "Tensor was given that numpy cannot read"),
            (np.zeros((1, 3, 32, 65), np.float32), r"\(>=1, 3, 32, 64\), but it is \(1, 3, 32, 65\)"),
            (np.zeros((3, 32, 64), np.float32), r"but it is \(3, 32, 64\)"),
        ],
    )
    def test_inputs(self, detector, save, argument, message):
        with pytest.raises(ValueError, match=message):
            runtime.load(save(detector))(argument)

    def test_number_of_inputs(self, detector, save):
        with pytest.raises(ValueError, match="takes 1 inputs, got 0"):
            runtime.load(save(detector))()

    def test_damaged_files(self, detector, save):
        path = save(detector)
        data = bytearray(path.read_bytes())
        for position in (10, 200, len(data) // 2, len(data) - 5):
            damaged = data.copy()
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="not a usable semisparse model"):
                runtime.load(path)
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match="not a usable semisparse model"):
            runtime.load(path)

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            runtime.load(tmp_path / "none.safetensors")

    def test_newer_format(self, detector, save, monkeypatch):
        monkeypatch.setattr("semisparse.graph.VERSION", 9)
        path = save(detector)
        monkeypatch.undo()
        with pytest.raises(ValueError, match="version 9.*install a newer semisparse"):
            runtime.load(path)
