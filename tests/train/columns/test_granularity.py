import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semisparse.recipe import GRANULARITIES
from semisparse.train.columns.granularity import is_mask_of, make_mask, unit_index

sizes = st.tuples(st.integers(1, 30), st.integers(1, 30))


@settings(max_examples=150, deadline=None)
@given(sizes, st.floats(0, 0.99), st.sampled_from(GRANULARITIES), st.integers(0, 2**31))
def test_removes_whole_units_closest_to_the_ratio_lowest_scores_first(size, ratio, granularity, seed):
    scores = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    mask = make_mask(scores, ratio, granularity)
    assert mask.shape == size and mask.dtype == torch.bool and mask.any()
    units = unit_index(*size, granularity)
    kept = [set(mask.flatten()[units == u].tolist()) for u in range(int(units.max()) + 1)]
    assert all(len(values) == 1 for values in kept)  # a unit goes or stays as a whole
    mean = torch.stack([scores.flatten()[units == u].double().mean() for u in range(len(kept))])
    gone = torch.tensor([values == {False} for values in kept])
    if gone.any():
        assert mean[gone].max() <= mean[~gone].min() + 1e-9
    largest = int(torch.bincount(units).max())
    wanted = ratio * mask.numel()
    removed = int((~mask).sum())
    # Half a unit is the most that rounding can cost, unless one unit has to stay.
    assert abs(removed - wanted) <= largest / 2 + 1e-6 or int((~gone).sum()) == 1
    assert is_mask_of(mask, ratio, granularity)


@pytest.mark.parametrize("ratio, removed", [(0.0, 0), (0.1, 1), (0.2, 2), (0.3, 3), (0.95, 8)])
def test_small_map(ratio, removed):
    assert int((~make_mask(torch.rand(3, 3), ratio)).sum()) == removed


def test_masks_of_another_ratio_or_granularity_are_told_apart():
    mask = make_mask(torch.rand(12, 12), 0.3, "run4")
    assert is_mask_of(mask, 0.3, "run4") and is_mask_of(mask, 0.3, "pixel", 4)
    assert not is_mask_of(mask, 0.2, "run4") and not is_mask_of(mask, 0.3, "tile4x4")
    assert not is_mask_of(mask, 0.3, "run4", round_to=64)


def test_runs_are_aligned_in_row_major_order_across_rows():
    scores = torch.ones(4, 6)
    scores[0, 4:], scores[1, :2] = 0, 0  # columns 4..7: one run of four, over the end of a row
    expected = torch.ones(24, dtype=torch.bool)
    expected[4:8] = False
    assert torch.equal(make_mask(scores, 4 / 24, "run4").flatten(), expected)


def test_tiles_are_squares_of_output_pixels():
    scores = torch.ones(8, 10)
    scores[4:8, 8:10] = 0  # the partial tile in the corner
    scores[:4, 4:8] = 0.5
    mask = make_mask(scores, (8 + 16) / 80, "tile4x4")
    expected = torch.ones(8, 10, dtype=torch.bool)
    expected[4:8, 8:10] = False
    expected[:4, 4:8] = False
    assert torch.equal(mask, expected)


@settings(max_examples=100, deadline=None)
@given(sizes, st.floats(0, 0.9), st.sampled_from([4, 16, 96]), st.sampled_from(["pixel", "run4"]))
def test_kept_count_fills_register_panels(size, ratio, panel, granularity):
    mask = make_mask(torch.rand(size), ratio, granularity, round_to=panel)
    kept, count = int(mask.sum()), mask.numel()
    nearest = min(max(round((1 - ratio) * count / panel), 1) * panel, count)
    assert (
        nearest <= kept < nearest + (1 if granularity == "pixel" else 4)
    )  # the run at the end may be shorter


def test_a_map_smaller_than_one_panel_stays_whole():
    assert make_mask(torch.rand(7, 7), 0.3, "pixel", round_to=96).all()


def test_equal_scores_give_the_same_mask_every_time():
    masks = [make_mask(torch.zeros(12, 12), 0.3) for _ in range(3)]
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])


def test_errors():
    with pytest.raises(ValueError, match="granularity 'run' is unknown"):
        make_mask(torch.rand(4, 4), 0.2, "run")
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\)"):
        make_mask(torch.rand(1, 4, 4), 0.2)
