import copy
import pickle

import pytest
import torch
from nets import SmallNet, Training, equal
from torch import nn

from semisparse.masking import column_mask, masked_modules
from semisparse.recipe import CRITERIA, Recipe
from semisparse.train import Sparsifier


def recipe(criterion="saliency", ratio=0.3, **more):
    columns = {"ratio": ratio, "criterion": criterion, "begin": 0.2, "end": 0.7, **more}
    return Recipe({"_default": {"columns": columns}})


@pytest.mark.parametrize("criterion", CRITERIA)
def test_follows_the_schedule_then_freezes(criterion):
    training = Training(recipe(criterion, every=1)).run(20)
    removed = [sum(int((~m).sum()) for m in masks.values()) for masks in training.masks]
    columns = 12 * 14 + 6 * 7
    assert removed[:3] == [0, 0, 0]
    assert removed[13:] == [round(0.3 * 12 * 14) + round(0.3 * 6 * 7)] * 7
    assert removed == sorted(removed)
    halfway = removed[8] / columns  # step 9 is halfway between begin (4) and end (14)
    assert halfway == pytest.approx(0.3 * 0.75, abs=0.01)
    assert all(equal(masks, training.masks[13]) for masks in training.masks[13:])
    assert any(not equal(a, b) for a, b in zip(training.masks[4:12], training.masks[5:13], strict=True))
    training.sparsifier.finalize()
    assert equal(training.sparsifier.masks(), training.masks[13])
    assert training.sparsifier.removed() == pytest.approx(removed[-1] / columns)


def test_masks_are_in_the_model_and_its_copies():
    training = Training(recipe()).run(20)
    assert list(masked_modules(training.model)) == ["a.0", "b.0"]
    x = training.x[:2]
    training.model.eval()
    for other in (copy.deepcopy(training.model), pickle.loads(pickle.dumps(training.model))):
        assert equal({n: column_mask(m) for n, m in masked_modules(other).items()}, training.masks[-1])
        assert torch.equal(other(x), training.model(x))
    seen = []
    training.model.a[0].register_forward_hook(lambda m, i, out: seen.append(out))
    training.model(x)
    assert seen[0][:, :, ~training.masks[-1]["a.0"]].abs().max() == 0


@pytest.mark.parametrize("criterion", CRITERIA)
def test_state_continues_exactly(criterion):
    whole, first = Training(recipe(criterion)).run(20), Training(recipe(criterion)).run(9)
    second = first.continued().run(11)
    assert all(equal(a, b) for a, b in zip(first.masks + second.masks, whole.masks, strict=True))
    assert equal(second.model.state_dict(), whole.model.state_dict())
    # A finished state freezes a new sparsifier: nothing is recorded or changed any more.
    third = Training(recipe(criterion))
    third.sparsifier.load_state_dict(whole.sparsifier.state_dict())
    third.run(2)
    assert third.sparsifier.finalized and equal(third.masks[-1], whole.masks[-1])


def test_saliency_finds_the_columns_that_say_nothing():
    """The class is written in the middle of the pictures; their outer two rings are noise."""
    training = Training(recipe(begin=0.5, end=0.9, every=1, ratio=0.4), steps=60).run(60)
    mask = training.masks[-1]["a.0"]
    inner = torch.zeros(12, 14, dtype=torch.bool)
    inner[3:-3, 2:-2] = True
    kept_inside, kept_outside = mask[inner].double().mean(), mask[~inner].double().mean()
    assert kept_inside > 0.9 and kept_outside < 0.5


def test_coherent_random_uses_one_map_for_all_layers_and_keeps_the_best_step():
    training = Training(recipe("coherent_random", ratio=0.5))
    best, losses = [], []
    scores = lambda: training.sparsifier._criteria["coherent_random"]  # noqa: E731
    for _ in range(20):
        before = {k: v.clone() for k, v in scores().current.items()}
        training.run(1)
        batch = slice(32 * (training.done - 1), 32 * training.done)
        losses.append(batch)
        best.append(before)
    state = scores().state_dict()
    assert any(before and torch.equal(before["input"], state["best"]["input"]) for before in best)
    small = nn.functional.adaptive_avg_pool2d(state["best"]["input"][None, None], (6, 7))[0, 0]
    masks = training.masks[-1]
    assert small[masks["b.0"]].min() >= small[~masks["b.0"]].max()
    fine = state["best"]["input"]
    assert fine[masks["a.0"]].min() >= fine[~masks["a.0"]].max()


def test_random_criterion_keeps_the_scores_of_the_lowest_loss():
    training = Training(recipe("random", begin=0.0, end=0.9, initial=0.2), steps=10)
    criterion = training.sparsifier._criteria["random"]
    drawn = []
    for loss in (9.0, 5.0, 3.0, 4.0, 2.5, 7.0, 6.0, 8.0):
        drawn.append(criterion.current)
        training.sparsifier.step(loss)
    assert criterion.best_loss == 2.5 and criterion.best is drawn[4]
    training.sparsifier.step(1.0)  # the loss of the last candidate counts too
    assert criterion.best is not drawn[4] and training.sparsifier.finalized


@pytest.mark.parametrize("criterion", CRITERIA)
def test_without_total_steps_the_full_ratio_at_once(criterion):
    training = Training(recipe(criterion), total_steps=None).run(2)
    assert training.sparsifier.removed() == pytest.approx(0.3, abs=0.01)
    assert not training.sparsifier.finalized
    training.sparsifier.finalize()
    training.run(1)
    assert training.sparsifier.finalized
    assert equal(training.sparsifier.masks(), training.masks[-1])


def test_layers_may_differ_in_everything():
    entries = {
        "_default": {"columns": {"ratio": 0.25, "criterion": "coherent_random", "begin": 0.0, "end": 0.5}},
        "a.0": {"columns": {"criterion": "saliency", "granularity": "run4", "end": 0.75, "ratio": 0.5}},
    }
    training = Training(Recipe(entries)).run(20)
    assert training.sparsifier.column_ratios()["b.0"] == pytest.approx(0.25, abs=0.02)
    assert training.sparsifier.column_ratios()["a.0"] == 0.5
    runs = training.masks[-1]["a.0"].flatten().view(-1, 4)
    assert torch.equal(runs.all(1), runs.any(1))
    assert all(torch.equal(m["b.0"], training.masks[9]["b.0"]) for m in training.masks[9:])


def test_apply_to_gives_masks_to_another_model():
    training = Training(recipe()).run(20)
    other = SmallNet()
    training.sparsifier.apply_to(other)
    assert equal({n: column_mask(m) for n, m in masked_modules(other).items()}, training.masks[-1])


@pytest.mark.parametrize("more", [{}, {"granularity": "run4"}, {"scope": "global"}])
def test_masks_that_are_what_the_recipe_asks_for_stay(more):
    trained = Training(recipe(**more)).run(20)
    model, masks, x = trained.model, trained.masks[-1], trained.x[:1]
    again = Sparsifier(copy.deepcopy(model), recipe(**more), x, total_steps=10)
    assert equal(again.masks(), masks) and again.finalized and "kept" in again.describe()
    again.step(1.0)
    assert equal(again.masks(), masks)
    # Not at another size, ratio or granularity: such masks are dropped and made anew.
    other = {"granularity": "tile4x4" if "granularity" in more else "run4"}
    for settings, picture in (
        (recipe(**more), x[..., :-2]),
        (recipe(**more, ratio=0.5), x),
        (recipe(**{**more, **other}), x),
        (Recipe({"b.0": {"scheme": "unstructured", "ratio": 0.5}}), x),
    ):
        sparsifier = Sparsifier(copy.deepcopy(model), settings, picture, total_steps=10)
        assert all(mask.all() for mask in sparsifier.masks().values())
        assert list(masked_modules(sparsifier.model)) == list(sparsifier.masks())


def test_penalty_is_a_zero_that_can_be_added():
    training = Training(recipe())
    assert training.sparsifier.penalty().item() == 0 and training.sparsifier.penalty().dim() == 0


def test_constructing_leaves_modes_and_statistics_alone():
    model = SmallNet().train()
    model.b.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    Sparsifier(model, recipe(), torch.randn(2, 3, 12, 14), total_steps=10)
    assert model.a.training and not model.b.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k in before)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.conv, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return self.conv(self.conv(self.first(x)))


def test_errors():
    x = torch.randn(1, 3, 12, 14)
    with pytest.raises(ValueError, match="conv is used at the sizes .* add it to _skip"):
        Sparsifier(Twice(), Recipe({"conv": {"columns": {"ratio": 0.2}}}), x)
    with pytest.raises(ValueError, match="unused is not used in the forward pass"):
        Sparsifier(Twice(), Recipe({"unused": {"columns": {"ratio": 0.2}}}), x)
    with pytest.raises(ValueError, match=r"does not run on an example input of shape \(1, 4, 12, 14\)"):
        Sparsifier(SmallNet(), recipe(), torch.randn(1, 4, 12, 14))
    with pytest.raises(ValueError, match="names the layer 'c.0'"):
        Sparsifier(SmallNet(), Recipe({"c.0": {"columns": {"ratio": 0.2}}}), x)
    with pytest.raises(ValueError, match="recipe is a dict"):
        Sparsifier(SmallNet(), {"_default": {}}, x)
    with pytest.raises(ValueError, match="total_steps is 0"):
        Sparsifier(SmallNet(), recipe(), x, total_steps=0)
    with pytest.raises(
        RuntimeError, match="has seen no gradient of 'a.0': train .* before the mask is chosen"
    ):
        Sparsifier(SmallNet(), recipe(), x).finalize()


def test_state_of_another_run_is_refused_and_changes_nothing():
    training = Training(recipe()).run(20)
    state = training.sparsifier.state_dict()
    x = torch.randn(1, 3, 12, 14)
    for sparsifier, message in (
        (Sparsifier(SmallNet(), recipe(ratio=0.2), x, total_steps=20), "belongs to another recipe"),
        (Sparsifier(SmallNet(), recipe(), x, total_steps=21), "a training of 20 steps, this one has 21"),
        (
            Sparsifier(SmallNet(), recipe(), torch.randn(1, 3, 16, 14), total_steps=20),
            "mask of size .12, 14.",
        ),
    ):
        before = sparsifier.masks()
        with pytest.raises(ValueError, match=message):
            sparsifier.load_state_dict(state)
        assert sparsifier.steps == 0 and equal(sparsifier.masks(), before)
    with pytest.raises(ValueError, match="version 99"):
        training.sparsifier.load_state_dict({**state, "version": 99})


def test_no_layer_to_make_sparse():
    sparsifier = Sparsifier(SmallNet(), Recipe({}), torch.randn(1, 3, 12, 14), total_steps=2)
    sparsifier.step(1.0)
    sparsifier.finalize()
    assert sparsifier.removed() == 0 and sparsifier.describe() == "the recipe makes no layer sparse"
