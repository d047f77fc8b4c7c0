import pytest
import torch
from nets import SmallNet, Training, equal
from torch import nn

from semisparse.recipe import Recipe
from semisparse.train import Sparsifier
from semisparse.train.optimize import WeightAverage


def recipe(**more):
    settings = {"scheme": "pattern", "group": 2, "connectivity": 0.5, "begin": 0.1, "end": 0.6, **more}
    if settings.get("method", "admm") == "admm":
        settings.setdefault("rho", 20.0)
    return Recipe({"_default": settings, "_skip": ["1x1", "stem", "depthwise", "linear"]})


def structured(weight, group, connectivity):
    """How many kernels are left; asserts 4 weights of a kernel, shared patterns in some order of filters."""
    used = (weight != 0).flatten(2)
    counts = used.sum(-1)
    assert set(counts.unique().tolist()) <= {0, 4} and (used[..., 4] == (counts > 0)).all()
    rows = used.flatten(1)
    partners = (rows[:, None] == rows[None]).all(-1).sum(1)
    assert (partners >= group).all()
    kernels = counts.numel()
    assert int((counts > 0).sum()) == pytest.approx(kernels * (1 - connectivity), abs=group)
    return {tuple(k) for k in used[counts > 0].tolist()}


def test_weights_are_led_to_their_structure_and_stay_there():
    training = Training(recipe(), 80).run(80)
    residuals = [row["residual"] for row in training.log]
    assert [row["step"] for row in training.log] == list(range(8, 48, 4))
    assert residuals[-1] < 0.3 * residuals[0]
    assert training.log[-1]["connectivity_residual"] < 0.3 * training.log[0]["connectivity_residual"]
    rhos = [row["rho"] for row in training.log]
    assert rhos == sorted(rhos) and 0.02 <= rhos[0] < 0.08 and 8 < rhos[-1] <= 20
    assert sum(row["changed"] for row in training.log[1:]) > 0
    assert training.log[-1]["changed"] < 0.1 and training.log[-1]["connectivity_changed"] < 0.1
    # Nothing is removed before the end, everything after it, and the masks stay.
    masks = training.sparsifier.weight_masks()
    for name, weight in training.weights[46].items():
        assert weight.count_nonzero() == weight.numel()
        assert torch.equal(training.weights[47][name] != 0, masks[name])
        assert torch.equal(training.weights[79][name] != 0, masks[name])
    shapes = [structured(training.layer(n).weight, 2, 0.5) for n in ("a.0", "b.0")]
    assert len(shapes[0] | shapes[1]) <= 8  # one library
    assert training.sparsifier.finalized and training.sparsifier.penalty().item() == 0
    assert training.sparsifier.weights_removed() == pytest.approx(1 - 4 / 9 / 2, abs=0.01)
    training.model.eval()
    accuracy = (training.model(training.x).argmax(1) == training.y).float().mean()
    assert accuracy > 0.9


def test_z_and_y_agree_at_the_end():
    """What the two copies keep together is what is kept: one more projection changes almost nothing."""
    training = Training(recipe(), 80).run(47)
    copies = training.sparsifier.weights.methods["admm"]._copies
    both = {name: (z.kept & y.kept) for name, (z, y) in copies.items()}
    training.run(1)
    for name, mask in training.sparsifier.weight_masks().items():
        assert (both[name] == mask).float().mean() > 0.97


def test_duals_do_not_pile_up():
    """Updates much faster than the weights can follow: full dual steps would reach |W| / sqrt(c)."""
    training = Training(recipe(rho=1e-3, every=1, begin=0.0, end=1.0), 80).run(79)
    for name, copies in training.sparsifier.weights.methods["admm"]._copies.items():
        for copy_ in copies:
            assert copy_.dual.norm() < 0.2 * training.layer(name).weight.norm()


@pytest.mark.parametrize("method", ["admm", "magnitude"])
@pytest.mark.parametrize("at", [3, 21, 60])
def test_state_continues_exactly(method, at):
    settings = recipe(method=method)
    whole, first = Training(settings, 80).run(80), Training(settings, 80).run(at)
    second = first.continued().run(80 - at)
    for a, b in zip(whole.weights, first.weights + second.weights, strict=True):
        assert equal(a, b)
    assert whole.log == first.log + second.log


def test_magnitude_removes_gradually():
    settings = {"scheme": "unstructured", "ratio": 0.8, "connectivity": 0.0, "group": 1}
    training = Training(recipe(method="magnitude", **settings), 80)
    removed = []
    for _ in range(80):
        training.run(1)
        removed.append(training.sparsifier.weights_removed())
    assert removed[7] == 0 and removed == sorted(removed) and len(set(removed)) > 8
    assert removed[47] == removed[-1] == pytest.approx(0.8, abs=0.001)
    halfway = removed[28]  # p = 0.5 after step 28
    assert halfway == pytest.approx(0.8 * (1 - 0.5**3), abs=0.03)
    assert training.sparsifier.weight_ratios()["a.0"] == pytest.approx(0.8, abs=0.001)


@pytest.mark.parametrize("method", ["admm", "magnitude"])
def test_without_total_steps_finalize_prunes(method):
    training = Training(recipe(method=method), steps=80, total_steps=None).run(3)
    assert not training.sparsifier.finalized
    training.sparsifier.finalize()
    assert training.sparsifier.finalized
    structured(training.layer("a.0").weight, 2, 0.5)
    Sparsifier(SmallNet(), recipe(), training.x[:1], total_steps=5).finalize()  # before any step


def test_columns_and_weights_in_one_run_and_averages_are_sparse():
    settings = recipe(columns={"ratio": 0.3, "begin": 0.2, "end": 0.7}).to_dict()
    training = Training(Recipe(settings), 80)
    average = WeightAverage(training.model, 0.99)
    for _ in range(80):
        training.run(1)
        average.update(training.model)
    assert training.sparsifier.finalized
    assert training.sparsifier.removed() == pytest.approx(0.3, abs=0.01)
    structured(training.layer("b.0").weight, 2, 0.5)
    assert average.module.b[0].weight.count_nonzero() > training.layer("b.0").weight.count_nonzero()
    training.sparsifier.apply_to(average.module)
    assert torch.equal(average.module.b[0].weight != 0, training.layer("b.0").weight != 0)
    text = training.sparsifier.describe()
    assert "pattern 0.556, kernels 0.5, shared by 2 filters removed (admm, 0.1..0.6)" in text
    assert "columns removed" in text


def test_kernels_alone_and_channel_groups():
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=2)

        def forward(self, x):
            return self.conv(self.first(x))

    model = Grouped()
    settings = Recipe({"conv": {"connectivity": 0.5, "group": 4, "method": "magnitude"}})
    sparsifier = Sparsifier(model, settings, torch.randn(1, 3, 8, 8), total_steps=1)
    sparsifier.finalize()
    kernels = (model.conv.weight != 0).flatten(2)
    assert torch.equal(kernels.all(-1), kernels.any(-1)) and kernels.any(-1).sum() == 24
    rows = kernels.flatten(1)
    for half in (rows[:6], rows[6:]):  # of six filters, units of four and two
        assert sorted((half[:, None] == half[None]).all(-1).sum(1).tolist()) in ([2, 2, 4, 4, 4, 4], [6] * 6)


def test_kernels_alone_are_led_too():
    training = Training(recipe(scheme="dense"), 80).run(80)
    first, last = training.log[0], training.log[-1]
    assert 0 < last["residual"] < 0.5 * first["residual"] and "connectivity_residual" not in last
    assert sum(row["changed"] for row in training.log[1:]) > 0


def test_state_of_other_weights_is_refused():
    training = Training(recipe(), 80).run(60)
    state = training.sparsifier.state_dict()
    wider = SmallNet()
    wider.b[0] = nn.Conv2d(8, 16, 3, 2, 1)
    wider.b[1], wider.point = nn.BatchNorm2d(16), nn.Conv2d(16, 12, 1)
    other = Sparsifier(wider, recipe(), training.x[:1], total_steps=80)
    with pytest.raises(ValueError, match=r"'b.0' a weight mask of shape \(12, 8, 3, 3\), .* \(16, 8, 3, 3\)"):
        other.load_state_dict(state)
    assert other.steps == 0 and not other.weight_masks()


def test_time_to_recover():
    def steps(total, **columns):
        settings = Recipe({**recipe().to_dict(), "a.0": {"columns": {"ratio": 0.2, **columns}}})
        return Sparsifier(
            SmallNet(), settings, torch.zeros(1, 3, 12, 14), total_steps=total
        ).retraining_steps()

    assert steps(100) == 40 and steps(100, end=0.9) == 10 and steps(100, end=0.5) == 40
    assert steps(None) == 0
    dense = Sparsifier(SmallNet(), Recipe({}), torch.zeros(1, 3, 12, 14), total_steps=70)
    assert dense.retraining_steps() == 70
