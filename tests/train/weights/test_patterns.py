import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semisparse.recipe import LayerRecipe
from semisparse.train.weights import connectivity, patterns
from semisparse.train.weights.order import similar_filters
from semisparse.train.weights.scheme import Context

RECIPE = LayerRecipe(scheme="pattern")


def test_candidates_are_all_shapes_with_the_centre():
    four = patterns.candidates(4)
    assert four.shape == (56, 3, 3) and four.flatten(1).sum(1).eq(4).all() and four[:, 1, 1].all()
    assert len({tuple(p.flatten().tolist()) for p in four}) == 56
    assert [len(patterns.candidates(n)) for n in (1, 2, 5, 9)] == [1, 8, 70, 1]
    for entries in (0, 10):
        with pytest.raises(ValueError, match=f"entries is {entries}, expected 1 to 9"):
            patterns.candidates(entries)


@given(st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_natural_pattern_is_the_centre_and_the_largest_others(entries, seed):
    weight = torch.randn(3, 5, 3, 3, generator=torch.Generator().manual_seed(seed))
    shapes = patterns.candidates(entries)[patterns.natural_patterns(weight, entries)]
    for f, c in itertools.product(range(3), range(5)):
        magnitudes = weight[f, c].abs().flatten()
        magnitudes[4] = torch.inf
        expected = torch.zeros(9, dtype=torch.bool)
        expected[magnitudes.topk(entries).indices] = True
        assert torch.equal(shapes[f, c].flatten(), expected)


def test_library_is_the_most_frequent_natural_patterns():
    known = patterns.candidates(4)
    counts = {7: 5, 40: 3, 12: 2, 0: 1}
    kernels = torch.cat([known[i].float().expand(n, 3, 3) for i, n in counts.items()])
    dead = torch.zeros(30, 3, 3)  # removed kernels would vote for the first candidate
    weights = [kernels[:6].view(2, 3, 3, 3), torch.cat([kernels[6:], dead]).view(5, 7, 3, 3)]
    library = patterns.choose_library(weights, 3)
    assert torch.equal(library, known[[7, 40, 12]])
    assert len(patterns.choose_library(weights, 56)) == 56
    with pytest.raises(ValueError, match="patterns is 57, but there are 56 patterns of 4 entries"):
        patterns.choose_library(weights, 57)


@st.composite
def layers(draw):
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    shape = (groups * per_group, draw(st.integers(1, 6)), 3, 3)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    weight = torch.randn(shape, generator=generator)
    library = patterns.choose_library([weight], draw(st.integers(1, 8)), 4)
    group = draw(st.sampled_from((1, 2, 4, 8)))
    order = None
    if draw(st.booleans()):
        order = torch.cat(
            [g * per_group + torch.randperm(per_group, generator=generator) for g in range(groups)]
        )
    return weight, dataclasses.replace(RECIPE, group=group), Context(groups, library, order)


def units(weight, group, context):
    """Lists of filters that share, the slow way."""
    order = list(range(len(weight))) if context.order is None else context.order.tolist()
    per_group = len(weight) // context.groups
    for first in range(0, len(weight), per_group):
        filters = order[first : first + per_group]
        yield from (filters[i : i + group] for i in range(0, per_group, group))


@given(layers())
@settings(max_examples=60, deadline=None)
def test_mask_keeps_the_most_that_shared_patterns_can(layer):
    weight, recipe, context = layer
    mask = patterns.mask(weight, recipe, patterns.final_ratio(weight, recipe), context)
    assert mask.dtype == torch.bool and mask.shape == weight.shape
    for filters in units(weight, recipe.group, context):
        for c in range(weight.shape[1]):
            kept = [(weight[filters, c] * p).square().sum() for p in context.library]
            assert (mask[filters, c] == mask[filters[0], c]).all()
            assert any(torch.equal(mask[filters[0], c], p) for p in context.library)
            got = (weight[filters, c] * mask[filters, c]).square().sum()
            assert got >= max(kept) - 1e-4


@given(layers(), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_partial_masks_treat_the_kernels_first_that_lose_least(layer, amount):
    weight, recipe, context = layer
    final = patterns.final_ratio(weight, recipe)
    full = patterns.mask(weight, recipe, final, context)
    part = patterns.mask(weight, recipe, amount * final, context)
    assert (part | ~full).all()  # nothing goes that stays in the end
    treated, lost = [], []
    for filters in units(weight, recipe.group, context):
        for c in range(weight.shape[1]):
            block = part[filters, c]
            assert block.all() or torch.equal(block, full[filters, c])
            treated.append(not bool(block.all()))
            lost.append((weight[filters, c] * ~full[filters, c]).square().sum().item() / len(filters))
    assert abs(sum(treated) - amount * len(treated)) <= 0.5 + 1e-6
    if any(treated) and not all(treated):
        worst = max(x for x, t in zip(lost, treated, strict=True) if t)
        assert worst <= min(x for x, t in zip(lost, treated, strict=True) if not t) + 1e-4


def test_other_kernels_are_refused():
    for shape in ((4, 4, 1, 1), (4, 4, 5, 5), (4, 4)):
        with pytest.raises(ValueError, match="patterns are for 3x3 kernels, .*'block_punched'"):
            patterns.mask(torch.randn(shape), RECIPE, 0.5)


def test_a_layer_alone_chooses_its_own_library():
    weight = torch.randn(8, 8, 3, 3)
    library = patterns.choose_library([weight], 8, 4)
    expected = patterns.mask(weight, RECIPE, 5 / 9, Context(library=library))
    assert torch.equal(patterns.mask(weight, RECIPE, 5 / 9), expected)
    assert patterns.assign(weight, RECIPE, Context(library=library)).max() < 8


@given(layers(), st.floats(0, 0.95))
@settings(max_examples=40, deadline=None)
def test_connectivity_removes_the_weakest_kernels_of_a_unit_together(layer, ratio):
    weight, recipe, context = layer
    mask = connectivity.mask(weight, recipe, ratio, context)
    kernels = mask.flatten(2)
    assert mask.shape == weight.shape and torch.equal(kernels.all(-1), kernels.any(-1))
    kept, gone = [], []
    for filters in units(weight, recipe.group, context):
        for c in range(weight.shape[1]):
            assert kernels[filters, c].unique().numel() == 1
            strength = weight[filters, c].square().sum().item() / len(filters)
            (kept if kernels[filters[0], c, 0] else gone).append(strength)
    assert kept and (not gone or min(kept) >= max(gone) - 1e-4)
    removed = (~kernels[..., 0]).sum() / kernels[..., 0].numel()
    assert len(kept) == 1 or abs(removed - ratio) * len(weight) * weight.shape[1] <= recipe.group / 2 + 1e-3


def test_similar_filters_find_each_other():
    """Filters made in fours that share patterns and kernels, then shuffled within two channel groups."""
    generator = torch.Generator().manual_seed(3)
    library = patterns.candidates(4)[torch.randperm(56, generator=generator)[:8]]
    shapes = library[torch.randint(8, (8, 12), generator=generator)].repeat_interleave(4, 0)
    kept = (torch.rand(8, 12, generator=generator) > 0.5).repeat_interleave(4, 0)
    weight = (shapes * kept[..., None, None]) * (1 + torch.rand(32, 12, 3, 3, generator=generator))
    shuffled = torch.cat([first + torch.randperm(16, generator=generator) for first in (0, 16)])
    weight = weight[shuffled] + 0.01 * torch.randn(32, 12, 3, 3, generator=generator)
    for conn in (0.0, 0.5):
        recipe = dataclasses.replace(RECIPE, group=4, connectivity=conn)
        context = Context(2, library)
        order = similar_filters(weight, recipe, context)
        assert sorted(order[:16].tolist()) == list(range(16)) and sorted(order.tolist()) == list(range(32))
        found = shuffled[order].view(8, 4) // 4
        assert (found == found[:, :1]).all()
        context = dataclasses.replace(context, order=order)
        mask = patterns.mask(weight, recipe, 5 / 9, context)
        assert (weight * mask).square().sum() > 0.99 * weight.square().sum()


@given(layers())
@settings(max_examples=20, deadline=None)
def test_an_order_loses_nothing_and_repeats(layer):
    weight, recipe, context = layer
    order = similar_filters(weight, recipe, context)
    assert sorted(order.tolist()) == list(range(len(weight)))
    assert torch.equal(order, similar_filters(weight, recipe, context))
    per_group = len(weight) // context.groups
    assert torch.equal(order // per_group, torch.arange(len(weight)) // per_group)


def test_what_is_pruned_already_is_found_again():
    """A pruned network that is trained on, with the same recipe, keeps its mask: no order is stored in it."""
    generator = torch.Generator().manual_seed(5)
    recipe = dataclasses.replace(RECIPE, group=4, connectivity=0.7)

    def prune(weight):
        context = Context(library=patterns.choose_library([weight], 8))
        context = dataclasses.replace(context, order=similar_filters(weight, recipe, context))
        mask = patterns.mask(weight, recipe, 5 / 9, context)
        return weight * (mask & connectivity.mask(weight * mask, recipe, 0.7, context))

    pruned = prune(torch.randn(32, 24, 3, 3, generator=generator))
    assert torch.equal(prune(pruned), pruned)
