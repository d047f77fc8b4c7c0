"""The shipped recipes, and all schemes with columns in one recipe: trained, counted, converted, stored."""

import pytest
import torch
from nets import Training
from torch import nn

import semisparse as ss
from semisparse.recipe import Recipe


class Net(nn.Module):
    """Every kind of layer that recipes tell apart; BatchNorm after each convolution."""

    def __init__(self):
        super().__init__()

        def conv(*args, **kwargs):
            return nn.Sequential(nn.Conv2d(*args, bias=False, **kwargs), nn.BatchNorm2d(args[1]), nn.ReLU())

        self.stem = conv(3, 16, 3, padding=1)
        self.body = nn.Sequential(
            conv(16, 16, 3, padding=1),
            conv(16, 32, 1),
            conv(32, 32, 3, padding=1, groups=32),
            conv(32, 16, 5, padding=2, stride=2),
        )
        self.tail = conv(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(self.tail(self.body(self.stem(x))).mean((2, 3)))


STEPS = 40


def train(recipe):
    training = Training(recipe, STEPS, model=Net).run(STEPS)
    training.sparsifier.finalize()
    assert training.losses[-1] < 0.7  # of 1.39 at random
    return training.model.eval(), training.sparsifier, training.x[:2]


def check(model, x, recipe, tmp_path):
    """Counts agree before and after conversion, and so do the outputs; returns the layers' statistics."""
    before = ss.statistics(model, x, recipe)
    assert not any("recipe" in reason for layer in before.layers for reason in layer.reasons)
    fast = ss.convert(model, x)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-4)
    ss.save(fast, tmp_path / "model.safetensors")
    after = ss.statistics(ss.load(tmp_path / "model.safetensors"))
    for old, new in zip(before.layers, after.layers, strict=True):
        assert old.name.split(".")[0] == new.name.split(".")[0] and old.structure == new.structure
        assert (old.macs_dense, old.macs_kept) == (new.macs_dense, new.macs_kept)
    assert before.macs_kept < before.macs_dense
    return {layer.name: layer for layer in before.layers}


@pytest.mark.parametrize("name", [name for name in Recipe.shipped() if not name.startswith("columns")])
def test_shipped(name, tmp_path):
    recipe = Recipe.load(name)
    model, sparsifier, x = train(recipe)
    layers = check(model, x, recipe, tmp_path)
    sparse = {layer: round(x.weight_sparsity, 3) for layer, x in layers.items() if x.weight_sparsity > 0}
    columns = {layer for layer, x in layers.items() if x.column_sparsity > 0}
    spatial = ("body.0.0", "body.3.0", "tail.0")
    if name == "kernels+columns":  # columns where they pay on this machine
        assert columns == {n for n, choice in sparsifier.choices.items() if choice.granularity is not None}
        assert set(sparsifier.choices) == set(spatial)
        assert sparse == pytest.approx(dict.fromkeys(spatial, 0.71875), abs=0.03)
        return
    assert columns == (set(spatial) if name == "pattern+columns" else set())
    if name == "punched":
        assert sparse == pytest.approx(dict.fromkeys(spatial, 0.75), abs=0.01)
        assert all(layers[layer].structure.block == (8, 4) for layer in spatial)
        assert all(layers[layer].structure.scheme == "block_punched" for layer in spatial)
        return
    kernels = {"mixed": 0.5, "pattern+connectivity-8x": 0.71875}.get(name, 0.0)
    expected = dict.fromkeys(spatial, 1 - 4 / 9 * (1 - kernels))
    if name == "mixed":
        expected |= {"body.1.0": 0.5, "fc": 0.5}
    assert sparse == pytest.approx(expected, abs=0.03)
    for layer in ("body.0.0", "tail.0"):
        structure = layers[layer].structure
        assert structure.scheme == "pattern" and structure.patterns <= 8 and structure.block[0] == 4
        assert structure.connectivity == pytest.approx(kernels, abs=0.02)
    assert layers["body.3.0"].scheme == "block_punched"


EVERYTHING = {
    "_default": {
        "scheme": "pattern",
        "group": 4,
        "connectivity": 0.25,
        "columns": {"ratio": 0.3, "begin": 0.2, "end": 0.8},
    },
    "_1x1": {"scheme": "block", "ratio": 0.5, "connectivity": 0, "method": "reweighted", "columns": None},
    "_linear": {"scheme": "block", "ratio": 0.5, "axis": "both", "block": [2, 2], "method": "magnitude"},
    "_depthwise": {"scheme": "unstructured", "ratio": 0.3, "scope": "global", "method": "magnitude"}
    | {"group": 1, "connectivity": 0},
    "_5x5": {"scheme": "block_punched", "ratio": 0.6, "method": "magnitude", "begin": 0.1, "end": 0.6}
    | {"connectivity": 0},
    "tail.0": {"scheme": "structured", "ratio": 0.25, "connectivity": 0, "columns": {"granularity": "run4"}},
}


def test_every_scheme_and_method_with_columns_in_one_run(tmp_path):
    recipe = Recipe(EVERYTHING)
    model, sparsifier, x = train(recipe)
    layers = check(model, x, recipe, tmp_path)
    schemes = {name: layer.scheme for name, layer in layers.items()}
    assert schemes == {
        "stem.0": "dense",
        "body.0.0": "pattern",
        "body.1.0": "block",
        "body.2.0": "unstructured",
        "body.3.0": "block_punched",
        "tail.0": "structured",
        "fc": "block",
    }
    sparsities = {name: layer.weight_sparsity for name, layer in layers.items()}
    assert sparsities == pytest.approx(
        {
            "stem.0": 0,
            "body.0.0": 1 - 4 / 9 * 3 / 4,
            "body.1.0": 0.5,
            "body.2.0": 0.3,
            "body.3.0": 0.6,
            "tail.0": 0.25,
            "fc": 0.5,
        },
        abs=0.04,
    )
    masked = {name for name, layer in layers.items() if layer.column_sparsity > 0}
    assert masked == {"body.0.0", "body.2.0", "body.3.0", "tail.0"}
    text = sparsifier.describe()
    assert "block 0.5, shared out among layers removed (reweighted" in text and "columns removed" in text


def test_strict_conversion_of_a_pruned_convolutional_network():
    model, _, x = train(Recipe.load("pattern+columns"))
    fast = ss.convert(model, x, strict=True)
    assert not any(layer.wasted for layer in fast.layers)
