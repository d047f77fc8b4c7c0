import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import SmallNet, Training, equal, quadrants
from torch import nn

from semisparse.masking import column_mask
from semisparse.recipe import Recipe
from semisparse.train import HeldOut, Sparsifier
from semisparse.train.columns.granularity import make_mask
from semisparse.train.columns.held_out import race, ranks, smooth


def recipe(**columns):
    columns = {"ratio": 0.4, "criterion": "held_out", "begin": 0.2, "end": 0.7} | columns
    return Recipe({"_default": {"columns": columns}})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20), st.integers(1, 20), st.integers(0, 2**31))
def test_a_race_finds_the_best_and_tries_bad_candidates_on_few_batches(means, batches, seed):
    noise = torch.rand(batches, generator=torch.Generator().manual_seed(seed)).tolist()  # of the batches
    asked = []

    def losses(candidate, first, last):
        asked.append((candidate, first, last))
        return [means[candidate] + noise[i] for i in range(first, last)]

    winner, found = race({i: i for i in range(len(means))}, losses, batches)
    assert means[winner] == pytest.approx(min(means))
    assert len(found[winner]) == batches
    for candidate, values in found.items():
        assert values == [means[candidate] + x for x in noise[: len(values)]]
    assert all(first < last for _, first, last in asked)  # nothing is tried twice
    assert sum(len(values) == batches for values in found.values()) <= max(
        2, len(means) if batches == 1 else 2
    )


def test_a_race_of_one_needs_no_round_more():
    assert race({"only": 0}, lambda c, first, last: [1.0] * (last - first), 3) == (
        "only",
        {"only": [1.0] * 3},
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_ranks_order_and_smooth_means(height, width, seed):
    scores = torch.rand(height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ranked = ranks(scores)
    assert sorted((ranked.flatten() * scores.numel()).round().tolist()) == list(range(scores.numel()))
    assert torch.equal(ranked.flatten().argsort(), scores.flatten().argsort())
    y, x = seed % height, seed % width
    around = scores[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
    assert smooth(scores)[y, x].item() == pytest.approx(around.mean().item())


def test_losses_leave_the_model_alone_and_do_not_know_its_running_statistics():
    model = SmallNet()
    model.b.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held_out = HeldOut([quadrants(8, seed=i) for i in range(3)])
    losses = held_out.losses(model, 1, 3)
    assert len(held_out) == 3 and len(losses) == 2
    assert equal(before, model.state_dict()) and model.a.training and not model.b.training
    assert model.a[1].track_running_stats
    for norm in (model.stem[1], model.a[1], model.b[1]):
        norm.running_mean += 3
    assert held_out.losses(model, 1, 3) == losses
    x, y = held_out.batches[1]
    assert losses[0] == pytest.approx(nn.functional.cross_entropy(model.train()(x), y).item(), rel=1e-4)


def sparsifier_of(model, loss, **columns):
    held_out = HeldOut(range(8), loss)
    return Sparsifier(model, recipe(**columns), torch.zeros(1, 3, 12, 14), total_steps=10, held_out=held_out)


def test_the_candidate_with_the_lowest_held_out_loss_makes_the_masks():
    """The loss counts how many columns of the upper half are kept: what prefers the lower half wins, wherever
    it comes from."""
    model, seen = SmallNet(), set()

    def loss(model, batch):
        seen.add(batch)
        return column_mask(model.a[0])[:6].float().mean() + 0.001 * batch

    sparsifier = sparsifier_of(model, loss)
    criterion = sparsifier._criteria["held_out"]
    x, y = quadrants(16)
    for _ in range(10):
        nn.functional.cross_entropy(model(x), y).backward()
        sparsifier.step()
    assert sparsifier.finalized and seen == set(range(8))
    races = criterion.log
    assert {"saliency", "coherent", "both", "mirrored", "smooth", "random0"} < set(races[0]["loss"])
    assert "mutant0" not in races[0]["loss"] and not races[0]["final"] and races[-1]["final"]
    for row in races:
        assert row["loss"][row["winner"]] <= min(row["loss"].values()) + 0.004  # of the batches
    # Nothing is random in this loss: what wins a race is at least as good as the best before it.
    best = [row["loss"][row["winner"]] for row in races]
    assert best == sorted(best, reverse=True) and best[-1] < best[0]
    kept = column_mask(model.a[0])[:6].float().mean().item()
    assert kept + 0.001 * 3.5 == pytest.approx(best[-1])


def test_evolution_ends_when_nothing_better_is_found():
    model = SmallNet()
    sparsifier = sparsifier_of(model, lambda model, batch: 1.0)
    x, y = quadrants(16)
    nn.functional.cross_entropy(model(x), y).backward()
    sparsifier.finalize()
    criterion = sparsifier._criteria["held_out"]
    assert [row["winner"] for row in criterion.log] == ["saliency"] + ["best"] * criterion.PATIENCE
    expected = make_mask(criterion.saliency.average["a.0"], 0.4)
    assert torch.equal(column_mask(model.a[0]), expected)


def test_masks_between_races_are_those_of_the_winner_at_the_ratio_of_the_schedule():
    model = SmallNet()
    sparsifier = sparsifier_of(model, lambda model, batch: column_mask(model.b[0]).float()[0, 0], every=1)
    x, y = quadrants(16)
    for _ in range(4):
        nn.functional.cross_entropy(model(x), y).backward()
        sparsifier.step()
    criterion = sparsifier._criteria["held_out"]
    assert len(criterion.log) == 1 and not sparsifier.finalized
    ratio = sparsifier._ratios["b.0"]
    assert 0 < ratio < 0.4
    assert torch.equal(column_mask(model.b[0]), make_mask(criterion.best["b.0"], ratio))


def test_on_pictures_with_empty_borders_the_middle_stays():
    training = Training(recipe(begin=0.5, end=0.9, every=1), steps=60).run(60)
    mask = training.masks[-1]["a.0"]
    inner = torch.zeros(12, 14, dtype=torch.bool)
    inner[3:-3, 2:-2] = True
    assert mask[inner].double().mean() > 0.85 > 0.55 > mask[~inner].double().mean()
    races = [row for row in training.log if row["criterion"] == "held_out"]
    assert sum(not row["final"] for row in races) == 3


def test_layers_that_freeze_at_different_times():
    entries = recipe(every=1).to_dict() | {"b.0": {"columns": {"end": 0.9, "granularity": "run4"}}}
    training = Training(Recipe(entries)).run(20)
    assert training.sparsifier.finalized
    assert all(torch.equal(masks["a.0"], training.masks[14]["a.0"]) for masks in training.masks[14:])
    criterion = training.sparsifier._criteria["held_out"]
    assert criterion.held_out is None and criterion.open == []


def test_bad_input():
    x = torch.zeros(1, 3, 12, 14)
    with pytest.raises(ValueError, match=r"'held_out' compares .* give Sparsifier\(..., held_out=HeldOut"):
        Sparsifier(SmallNet(), recipe(), x)
    with pytest.raises(ValueError, match="there are 0 held-out batches"):
        HeldOut([])
    sparsifier = Sparsifier(SmallNet(), recipe(), x, held_out=HeldOut([quadrants(4)]))
    with pytest.raises(RuntimeError, match="has seen no gradient of 'a.0'"):
        sparsifier.finalize()
