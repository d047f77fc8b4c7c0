import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import SmallNet, Training, equal
from torch import nn

from semisparse.masking import masked_modules
from semisparse.recipe import GRANULARITIES, Recipe
from semisparse.train import Sparsifier
from semisparse.train.columns import automatic
from semisparse.train.columns.automatic import DENSE, TOLERANCE, choose, fix_granularity

X = torch.randn(1, 3, 12, 14)


def recipe(**columns):
    columns = {"ratio": 0.3, "granularity": "auto", "begin": 0.2, "end": 0.7} | columns
    return Recipe({"_default": {"columns": columns}})


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(GRANULARITIES), st.floats(1e-3, 1e3), min_size=1))
def test_the_finest_that_is_about_as_fast_as_the_fastest(ms):
    chosen = choose({DENSE: 1e6} | ms)
    assert ms[chosen] <= (1 + TOLERANCE) * min(ms.values())
    finer = GRANULARITIES[: GRANULARITIES.index(chosen)]
    assert all(ms[name] > (1 + TOLERANCE) * min(ms.values()) for name in finer if name in ms)
    assert choose({DENSE: 1.04 * min(ms.values())} | ms) is None


def test_every_layer_gets_what_is_measured():
    model = SmallNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fixed, choices = fix_granularity(model, recipe(), X, rounds=1)
    assert list(choices) == ["a.0", "b.0"]
    layers = fixed.resolve(model)
    for name, choice in choices.items():
        if choice.granularity is None:
            assert name not in layers and choice.gain == 1
        else:
            assert layers[name].columns.granularity == choice.granularity in choice.ms
            assert (layers[name].columns.ratio, layers[name].columns.end) == (0.3, 0.7)
            assert choice.gain == choice.ms[DENSE] / choice.ms[choice.granularity]
        assert all(time > 0 for time in choice.ms.values()) and choice.machine
    assert equal(before, model.state_dict()) and model.training


def test_units_that_cannot_meet_the_ratio_are_no_choice():
    _, choices = fix_granularity(SmallNet(), recipe(ratio=0.1), X, rounds=1)
    assert "run16" not in choices["b.0"].ms and "run16" in choices["a.0"].ms  # 6x7 and 12x14 columns
    assert "pixel" in choices["b.0"].ms


def test_only_layers_that_ask_are_measured():
    assert fix_granularity(SmallNet(), recipe(granularity="run4"), X) == (recipe(granularity="run4"), {})
    entries = recipe().to_dict() | {"a.0": {"columns": {"granularity": "run8"}}}
    fixed, choices = fix_granularity(SmallNet(), Recipe(entries), X, rounds=1)
    assert list(choices) == ["b.0"]
    assert fixed.resolve(SmallNet())["a.0"].columns.granularity == "run8"


class Alike(nn.Module):
    """Layers that are alike but for their place, one that is not, and paddings of other kinds."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.same = nn.Conv2d(8, 8, 3, padding="same", dilation=2)
        self.reflected = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", groups=2)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x).relu()
        return self.reflected(self.same(x))


def test_layers_that_are_alike_are_measured_once_with_the_sparsity_of_their_weights(monkeypatch):
    seen = []

    def time(module, columns, input_size, rounds):
        seen.append((str(module), (module.weight != 0).float().mean().item(), tuple(input_size)))
        return {DENSE: 2.0} | {g: 1.0 + 0.3 * (g != "run8") for g in GRANULARITIES}

    monkeypatch.setattr(automatic, "_time", time)
    entries = recipe().to_dict()
    entries["_default"] |= {"scheme": "pattern", "group": 4, "connectivity": 0.5, "end": 0.5}
    entries["layers.2"] = {"scheme": "dense", "connectivity": 0.0}
    fixed, choices = fix_granularity(Alike(), Recipe(entries), X)
    model = Alike()
    assert [text for text, *_ in seen] == [*map(str, (*model.layers[1:], model.same, model.reflected))]
    assert [round(density, 3) for _, density, _ in seen] == [0.222, 1, 0.222, 0.222]
    assert {size for *_, size in seen} == {(1, 8, 12, 14)}
    assert [choice.granularity for choice in choices.values()] == ["run8"] * 5


def test_layers_of_every_padding_can_be_timed():
    _, choices = fix_granularity(Alike(), recipe(), X, rounds=1)
    assert set(choices) == {"layers.0", "layers.1", "layers.2", "same", "reflected"}


def pretend(times):
    return lambda *_: {DENSE: 2.0, **times}


def test_a_run_keeps_what_was_chosen_when_it_began(monkeypatch):
    monkeypatch.setattr(automatic, "_time", pretend({"pixel": 1.5, "run4": 1.0, "tile4x4": 0.99}))
    first = Training(recipe()).run(9)
    monkeypatch.setattr(automatic, "_time", pretend({"pixel": 1.5, "run4": 1.3, "tile4x4": 1.0}))
    other = Training(recipe())
    assert other.sparsifier.columns["a.0"].granularity == "tile4x4"
    second = first.continued()
    for sparsifier in (first.sparsifier, second.sparsifier):
        assert {c.granularity for c in sparsifier.columns.values()} == {"run4"}
        assert sparsifier.choices["b.0"].ms["run4"] == 1.0
        assert sparsifier.asked == recipe() and sparsifier.recipe != recipe()
    second.run(11)
    runs = second.masks[-1]["a.0"].flatten().view(-1, 4)
    assert torch.equal(runs.all(1), runs.any(1))
    # Also where another measurement would leave other layers alone.
    layers = iter([{"pixel": 1.95}, {"pixel": 1.0}] * 2)
    monkeypatch.setattr(automatic, "_time", lambda *_: {DENSE: 2.0} | next(layers))
    one = Training(recipe()).run(9)
    assert list(one.sparsifier.masks()) == ["b.0"]
    monkeypatch.setattr(automatic, "_time", pretend({"run4": 1.0, "pixel": 3.0}))
    two = one.continued()
    assert list(two.sparsifier.masks()) == ["b.0"] and two.run(11).sparsifier.finalized
    assert list(masked_modules(two.model)) == ["b.0"]
    assert not two.model.a[0]._forward_hooks  # neither a mask nor a recorder
    # Also from the recipe that names the choice: nothing is measured then.
    monkeypatch.setattr(automatic, "_time", None)
    third = Sparsifier(SmallNet(), first.sparsifier.recipe, X, total_steps=20)
    third.load_state_dict(second.sparsifier.state_dict())
    assert third.asked == recipe()
    with pytest.raises(ValueError, match="belongs to another recipe"):
        Sparsifier(SmallNet(), recipe(granularity="pixel"), X, total_steps=20).load_state_dict(
            second.sparsifier.state_dict()
        )


def test_describe_says_what_was_chosen_and_where_nothing_is_gained(monkeypatch):
    monkeypatch.setattr(automatic, "_time", pretend({"pixel": 1.0}))
    assert "0.3 pixel saliency, 0.2..0.7)  auto: 2.00x its dense 2.000 ms" in (
        Training(recipe()).sparsifier.describe()
    )
    monkeypatch.setattr(automatic, "_time", pretend({"pixel": 1.95}))
    nothing = Training(recipe()).run(20)
    assert "a.0  auto: all columns stay (2.000 ms; without" in nothing.sparsifier.describe()
    assert nothing.sparsifier.masks() == {} and nothing.sparsifier.finalized


def test_what_cannot_be_measured_is_an_error_that_says_what_to_do(monkeypatch):
    def broken(*_):
        raise OSError("no such kernel")

    monkeypatch.setattr(automatic, "_time", broken)
    model = SmallNet()
    with pytest.raises(
        RuntimeError, match=r"auto could not be measured here \(no such kernel\); name one of pixel, run4"
    ):
        Sparsifier(model, recipe(), X)
    assert not any("mask" in name for name in model.state_dict())
