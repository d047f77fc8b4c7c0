import pytest
import torch
from nets import Training, equal
from torch import nn

from semisparse.recipe import BOX_SCHEMES, METHODS, SCHEMES, Recipe
from semisparse.train import Sparsifier
from semisparse.train.weights import methods, registry


def recipe(**more):
    settings = {"scheme": "block_punched", "block": [4, 2], "method": "reweighted", "begin": 0.1, "end": 0.7}
    return Recipe({"_default": {**settings, **more}, "_skip": ["1x1", "stem", "linear"]})


def macs_left(sparsifier):
    """Share of the multiplications of the layers with a scheme that the masks leave."""
    layers, masks = sparsifier.weights.layers, sparsifier.weight_masks()
    kept = sum(int(masks[n].sum()) * layer.positions for n, layer in layers.items())
    return kept / sum(layer.weight.numel() * layer.positions for layer in layers.values())


def test_the_vocabulary_of_recipes_is_what_training_has():
    assert set(registry.SCHEMES) == set(SCHEMES) - {"dense"} and set(methods.METHODS) == set(METHODS)
    assert {name for name, scheme in registry.SCHEMES.items() if scheme.cuts} == set(BOX_SCHEMES)


def test_training_finds_rates_that_differ_and_meets_the_ratio():
    training = Training(recipe(ratio=0.6), 120).run(120)
    assert macs_left(training.sparsifier) == pytest.approx(0.4, abs=0.03)
    ratios = training.sparsifier.weight_ratios()
    assert list(ratios) == ["a.0", "b.0"] and abs(ratios["a.0"] - ratios["b.0"]) > 0.05
    # The price has made room before anything was cut: what was left to remove had faded.
    assert training.log[0]["left"] > 0.9 and training.log[-1]["left"] < 0.55
    assert [row["step"] for row in training.log] == list(range(12, 84, 4))
    assert sum(training.losses[-10:]) / 10 < 0.3
    for name, mask in training.sparsifier.weight_masks().items():
        weight = training.model.get_submodule(name).weight
        assert not weight[~mask].any() and weight[mask].all()  # retrained with the mask
        blocks = mask.unfold(0, 4, 4).unfold(1, 2, 2).flatten(4)
        assert (blocks.all(4) == blocks.any(4)).all()


def test_without_a_ratio_the_strength_decides():
    left = []
    for strength in (0.01, 1.0, 10.0):
        training = Training(recipe(strength=strength), 120).run(120)
        left.append(macs_left(training.sparsifier))
    assert left[0] > 0.95 and left[0] > left[1] > left[2] and left[1] < 0.9
    assert all(mask.any() for mask in training.sparsifier.weight_masks().values())


@pytest.mark.parametrize(
    "more",
    [
        {"scheme": "structured", "block": None},
        {"scheme": "structured", "axis": "channels", "block": None},
        {"scheme": "structured", "axis": "both", "block": None},
        {"scheme": "unstructured", "block": None},
    ],
    ids=str,
)
def test_every_scheme_with_boxes(more):
    settings = {key: value for key, value in more.items() if value is not None}
    entries = {
        "_default": {"method": "reweighted", "ratio": 0.5, **settings},
        "_skip": ["1x1", "stem", "linear"],
    }
    training = Training(Recipe(entries), steps=60).run(60)
    assert macs_left(training.sparsifier) == pytest.approx(0.5, abs=0.12)


def test_one_step_by_hand():
    """Weights shrink by their factor; the norm of the layer is restored; the loss has no term."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    entries = {"_default": {"scheme": "unstructured", "method": "reweighted", "strength": 2.0, "end": 0.8}}
    sparsifier = Sparsifier(model, Recipe({**entries, "_skip": []}), torch.randn(1, 2, 4, 4), total_steps=10)
    before = [model[i].weight.detach().clone() for i in (0, 2)]
    assert sparsifier.penalty().item() == 0
    sparsifier.step(1.0)
    for i, old in zip((0, 2), before, strict=True):
        squares = old.square() / (old.square().square().sum() / old.square().sum())
        shrunk = old / (1 + 2.0 / 8 / (squares + 0.01))
        torch.testing.assert_close(model[i].weight.detach(), shrunk * (old.norm() / shrunk.norm()))


@pytest.mark.parametrize("stop", [5, 40, 100])
def test_state_continues_exactly(stop):
    whole, first = Training(recipe(ratio=0.5), 120).run(120), Training(recipe(ratio=0.5), 120).run(stop)
    second = first.continued().run(120 - stop)
    assert equal(second.model.state_dict(), whole.model.state_dict())
    assert first.log + second.log == whole.log
