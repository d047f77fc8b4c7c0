import builtins

import pytest
import torch
from torch import nn

from semisparse.eval import peers
from semisparse.eval.latency import random_input


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_engines_compute_the_model(engine, model):
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    x = random_input(2, 3, 12, 12)
    ready, missing = peers.build([engine], model, x, threads=1)
    assert not missing
    with torch.inference_mode():
        result = ready[engine]()
        expected = model(x)
    result = result if isinstance(result, torch.Tensor) else torch.from_numpy(result[0])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_unknown_engine_is_refused(model):
    with pytest.raises(ValueError, match="unknown engine 'tvm': choose among torch"):
        peers.build(["tvm"], model, random_input(1, 3, 8, 8), threads=1)


def test_missing_engine_is_reported_with_its_remedy(model, monkeypatch):
    real = builtins.__import__

    def no_onnxruntime(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_onnxruntime)
    ready, missing = peers.build(["torch", "onnxruntime"], model, random_input(1, 3, 8, 8), threads=1)
    assert list(ready) == ["torch"]
    assert missing == {"onnxruntime": "onnxruntime is not installed (pip install 'semisparse[peers]')"}
