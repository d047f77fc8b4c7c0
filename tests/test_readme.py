"""What README shows works as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import semisparse as ss

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def resnet18():
    return pytest.importorskip("semisparse._torchvision").torchvision.models.resnet18(num_classes=10)


def test_python_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = resnet18()
    loader = [(torch.randn(2, 3, 64, 64), torch.randint(0, 10, (2,)))] * 2
    names = {
        "model": model,
        "example_input": torch.randn(1, 3, 64, 64),
        "loader": loader,
        "epochs": 1,
        "batches": loader,
        "criterion": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.001),
    }
    example, board = blocks("python")
    exec(example, names)
    with torch.inference_mode():
        torch.testing.assert_close(names["y"], model.eval()(names["x"]), rtol=1e-4, atol=1e-4)
    on_board = {"x": names["x"].numpy()}
    exec(board, on_board)
    np.testing.assert_allclose(on_board["y"], names["y"].detach().numpy(), rtol=1e-4, atol=1e-4)


def test_yaml_recipe(tmp_path):
    (text,) = blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(text)
    layers = ss.Recipe.load(tmp_path / "recipe.yaml").resolve(resnet18())
    assert layers["layer1.0.conv1"].scheme == "pattern" and layers["layer1.0.conv1"].connectivity == 0.5
    assert layers["layer3.0.conv1"].connectivity == 0.72 and layers["layer3.0.conv1"].columns.ratio == 0.3
    assert layers["layer3.0.downsample.0"].scheme == "block"
    assert layers["layer4.1.conv2"].scheme == "dense"


def test_every_named_file_exists():
    root = Path(__file__).parent.parent
    for name in re.findall(r"`\.?/?((?:tools|cpp|semisparse|train|eval|tests)/[\w/.]*)`", README):
        assert (root / name).exists(), name
