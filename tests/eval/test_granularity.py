import pytest
import torch
from torch import nn

from semisparse.eval import granularity
from semisparse.recipe import GRANULARITIES, Recipe
from semisparse.train.columns import automatic


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1))


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))


def run(*arguments, model="network"):
    granularity.main(["--model", f"{__name__}:{model}", "--size", "18", "--rounds", "1", *arguments])


@pytest.fixture(autouse=True)
def here(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[run.__module__])


def test_the_recipe_names_what_is_best_here(tmp_path, capsys, monkeypatch):
    times = {automatic.DENSE: 2.0} | dict.fromkeys(GRANULARITIES, 1.5) | {"run8": 1.0}
    monkeypatch.setattr(automatic, "_time", lambda *_: times)
    run("--recipe", "columns20", "--set", "columns.end=0.5", "-o", str(tmp_path / "here.yaml"))
    layers = Recipe.load(tmp_path / "here.yaml").resolve(network())
    assert list(layers) == ["1"]
    columns = layers["1"].columns
    assert (columns.granularity, columns.ratio, columns.end) == ("run8", 0.2, 0.5)
    text = capsys.readouterr().out
    header, line = text.splitlines()[1], text.splitlines()[3]
    assert header.split() == ["layer", "chosen", automatic.DENSE, *GRANULARITIES, "x"]
    assert line.split()[:2] == ["1", "run8"]


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="--rounds is 0, expected at least 1"):
        run("--rounds", "0")
    with pytest.raises(ValueError, match="removes no columns of"):
        run("--recipe", "pattern", model="linear")
    with pytest.raises(ValueError, match="is converted: its columns were removed in training"):
        granularity.main(["--model", str(tmp_path / "model.safetensors")])
