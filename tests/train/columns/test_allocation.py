import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import semisparse as ss
from semisparse.recipe import Recipe
from semisparse.train.columns.allocation import allocate, most


def naive_ratios(scores, macs, ratio):
    """Remove the least saliency per multiplication, one column after the other, until the budget is spent."""
    whole = sum(macs[name] * scores[name].numel() for name in macs)
    candidates = sorted(
        (value / macs[name], index, name)
        for index, name in enumerate(macs)
        for value in scores[name].flatten().tolist()
    )
    spent, count = 0.0, dict.fromkeys(macs, 0)
    for _, _, name in candidates:
        if count[name] + 1 > most(ratio) * scores[name].numel() + 1e-9:
            continue
        if spent + macs[name] > ratio * whole * (1 + 1e-9):
            break
        spent += macs[name]
        count[name] += 1
    return {name: count[name] / scores[name].numel() for name in macs}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=4),
    st.floats(0.01, 0.95),
    st.integers(0, 9999),
)
def test_the_cheapest_saliency_goes_first_and_no_layer_loses_too_much(layers, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {str(i): torch.rand(h, w, generator=generator).double() for i, (h, w, _) in enumerate(layers)}
    macs = {str(i): cost for i, (*_, cost) in enumerate(layers)}
    found = allocate(scores, macs, ratio)
    assert found == pytest.approx(naive_ratios(scores, macs, ratio))
    assert all(value <= most(ratio) + 1e-9 for value in found.values())


def test_a_layer_that_matters_less_loses_more_and_together_the_ratio():
    scores = {"much": torch.rand(20, 20) + 1, "little": torch.rand(20, 20), "other": torch.zeros(3, 3)}
    found = allocate(scores, {"much": 2, "little": 2}, 0.3)
    assert found == {"much": 0.0, "little": pytest.approx(0.6)}
    assert allocate(scores, {"much": 1, "little": 9}, 0.3)["little"] < 0.35  # so much costs more to compute
    assert allocate(scores, {"much": 2, "little": 2}, 0.0) == {"much": 0.0, "little": 0.0}


class Halves(nn.Module):
    """Two convolutions; the loss hardly hears the second one."""

    def __init__(self):
        super().__init__()
        self.loud, self.quiet = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.loud(x) + 0.01 * self.quiet(x)


def test_sparsifier_shares_out_what_layers_lose():
    torch.manual_seed(0)
    columns = {"ratio": 0.3, "scope": "global", "begin": 0.0, "end": 0.5}
    model, recipe = Halves(), Recipe({"_default": {"columns": columns}, "_skip": []})
    sparsifier = ss.train.Sparsifier(model, recipe, torch.zeros(1, 3, 10, 10), total_steps=8)
    removed = []
    for _ in range(8):
        loss = model(torch.rand(4, 3, 10, 10)).square().mean()
        loss.backward()
        sparsifier.step(loss)
        removed.append(sparsifier.removed())
    sparsifier.finalize()
    assert removed == sorted(removed) and sparsifier.removed() == pytest.approx(0.3)
    assert sparsifier.column_ratios() == {"loud": pytest.approx(0.0), "quiet": pytest.approx(0.6)}
    assert "shared out" in sparsifier.describe()
