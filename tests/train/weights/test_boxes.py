"""Block-punched, block, structured and unstructured masks against loops over single weights."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semisparse.recipe import LayerRecipe
from semisparse.train.weights.boxes import Boxes
from semisparse.train.weights.registry import SCHEMES
from semisparse.train.weights.scheme import Context, keep_largest


@st.composite
def cases(draw, kernels=((3, 3), (1, 1), (5, 5), (2, 3), ())):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.sampled_from(kernels))
    if kernel == ():
        groups = 1
    shape = (groups * draw(st.integers(1, 9)), draw(st.integers(1, 9)), *kernel)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    weight = torch.randn(shape, generator=generator)
    order = None
    if draw(st.booleans()):
        per_group = shape[0] // groups
        order = torch.cat(
            [g * per_group + torch.randperm(per_group, generator=generator) for g in range(groups)]
        )
    return weight, Context(groups=groups, order=order)


def naive_boxes(weight, context, filters, channels, whole_kernels):
    """The positions of every box, one list per box, by walking over all weights."""
    per_group = weight.shape[0] // context.groups
    order = range(weight.shape[0]) if context.order is None else context.order.tolist()
    place = {filter: i for i, filter in enumerate(order)}
    boxes = {}
    for position in itertools.product(*map(range, weight.shape)):
        group, inside = divmod(place[position[0]], per_group)
        key = (group, inside // filters, position[1] // channels, () if whole_kernels else position[2:])
        boxes.setdefault(key, []).append(position)
    return list(boxes.values())


def mean_square(weight, box):
    return sum(weight[p].item() ** 2 for p in box) / len(box)


def naive_keep(weight, boxes, ratio):
    """Remove the weakest boxes one by one as long as that brings the removed share closer to the ratio."""
    mask = torch.ones_like(weight, dtype=torch.bool)
    gone = 0
    for box in sorted(boxes, key=lambda box: mean_square(weight, box))[:-1]:
        if abs(gone + len(box) - ratio * weight.numel()) > abs(gone - ratio * weight.numel()):
            break
        gone += len(box)
        for position in box:
            mask[position] = False
    return mask


SIDES = st.integers(1, 10)


@settings(max_examples=150, deadline=None)
@given(cases(), SIDES, SIDES, st.booleans())
def test_boxes_against_loops(case, filters, channels, whole_kernels):
    weight, context = case
    boxes = Boxes(weight.shape, filters, channels, whole_kernels, context)
    means, sizes = boxes.mean_squares(weight), boxes.sizes
    assert means.shape == sizes.shape and sizes.sum() == weight.numel()
    spread_means, spread_sizes = boxes.expand(means), boxes.expand(sizes)
    numbers = boxes.expand(torch.arange(means.numel()).view(means.shape))
    naive = naive_boxes(weight, context, filters, channels, whole_kernels)
    assert len(naive) == means.numel() == len(set(numbers.flatten().tolist()))
    for box in naive:
        assert len({numbers[p].item() for p in box}) == 1
        assert all(spread_sizes[p] == len(box) for p in box)
        assert spread_means[box[0]].item() == pytest.approx(mean_square(weight, box), rel=1e-4)


def sides(scheme, axis, weight, context, block):
    filters, channels = weight.shape[0] // context.groups, weight.shape[1]
    return {
        ("block_punched", None): (*block, False),
        ("block", None): (block[0], 1, True),
        ("block", "channels"): (block[0], 1, True),
        ("block", "filters"): (1, block[1], True),
        ("structured", None): (1, channels, True),
        ("structured", "filters"): (1, channels, True),
        ("structured", "channels"): (filters, 1, True),
        ("unstructured", None): (1, 1, False),
    }[scheme, axis]


@settings(max_examples=150, deadline=None)
@given(
    cases(),
    st.sampled_from(
        [
            ("block_punched", None),
            ("block", None),
            ("block", "channels"),
            ("block", "filters"),
            ("structured", None),
            ("structured", "filters"),
            ("structured", "channels"),
            ("unstructured", None),
        ]
    ),
    st.tuples(SIDES, SIDES),
    st.floats(0, 0.99),
)
def test_masks_against_loops(case, kind, block, ratio):
    (weight, context), (scheme, axis) = case, kind
    layer = LayerRecipe(scheme=scheme, ratio=ratio, block=block, axis=axis)
    mask = SCHEMES[scheme].mask(weight, layer, ratio, context)
    assert mask.dtype == torch.bool and mask.shape == weight.shape
    naive = naive_keep(
        weight, naive_boxes(weight, context, *sides(scheme, axis, weight, context, block)), ratio
    )
    if not torch.equal(mask, naive):  # a removed count halfway between two boxes may round either way
        target = ratio * weight.numel()
        off, naive_off = (abs(int((~each).sum()) - target) for each in (mask, naive))
        assert off == pytest.approx(naive_off, abs=1e-3)
        assert not (mask & ~naive).any() or not (naive & ~mask).any()
    assert mask.any()
    assert torch.equal(mask, SCHEMES[scheme].mask(weight, layer, ratio, context))


@settings(max_examples=60, deadline=None)
@given(cases(kernels=((3, 3), (1, 1))), st.tuples(SIDES, SIDES), st.floats(0, 0.95))
def test_the_nearest_weight_of_its_structure(case, block, ratio):
    """Among all choices of as many boxes of equal size, the mask keeps the largest L2 norm."""
    weight, context = case
    block = tuple(
        max(side for side in range(1, size + 1) if size % side == 0 and side <= wanted)
        for wanted, size in zip(block, (weight.shape[0] // context.groups, weight.shape[1]), strict=True)
    )
    layer = LayerRecipe(scheme="block_punched", ratio=ratio, block=block)
    mask = SCHEMES["block_punched"].mask(weight, layer, ratio, context)
    energies = sorted(
        mean_square(weight, box) * len(box) for box in naive_boxes(weight, context, *block, False)
    )
    size = math.prod(block)
    removed = int((~mask).sum()) // size
    assert removed == min(max(round(ratio * len(energies) - 1e-9), 0), len(energies) - 1) or removed == round(
        ratio * len(energies) + 1e-9
    )
    assert (weight * mask).square().sum().item() == pytest.approx(sum(energies[removed:]), rel=1e-4)


@settings(max_examples=80, deadline=None)
@given(
    cases(kernels=((1, 1), ())), st.sampled_from(["block", "structured"]), st.tuples(SIDES, SIDES), st.data()
)
def test_both_axes_remove_columns_then_rows(case, scheme, block, data):
    weight, context = case
    ratio = data.draw(st.floats(0, 0.9))
    layer = LayerRecipe(scheme=scheme, ratio=ratio, block=block, axis="both")
    mask = SCHEMES[scheme].mask(weight, layer, ratio, context)
    columns, rows = SCHEMES[scheme].cuts(weight, layer, context)
    # Every removed weight lies in a box that is gone as a whole, of one cut or of the other.
    gone = torch.zeros_like(mask)
    for boxes in (columns, rows):
        gone |= boxes.expand(boxes.mean_squares(mask) == 0)
    assert torch.equal(gone, ~mask)
    largest = max(boxes.sizes.max().item() for boxes in (columns, rows))
    assert abs(int((~mask).sum()) - ratio * mask.numel()) <= 1.5 * largest
    assert mask.any()


def test_an_example_that_can_be_read():
    """Filters 0-1 and 2-3 are blocks over 2 channels; position 1 of the first block is the weakest."""
    weight = torch.ones(4, 2, 1, 3)
    weight[:2, :, 0, 1] = 0.1
    weight[0, 0, 0, 1] = 5.0  # a single large weight does not save its neighbours' position from ranking
    weight[2:, :, 0, 2] = 0.5
    layer = LayerRecipe(scheme="block_punched", ratio=1 / 6, block=(2, 2))
    mask = SCHEMES["block_punched"].mask(weight, layer, layer.ratio, Context())
    expected = torch.ones_like(mask)
    expected[2:, :, 0, 2] = False
    assert torch.equal(mask, expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.floats(0, 1))
def test_keep_largest_with_equal_sizes_is_a_count(scores, ratio):
    scores = torch.tensor(scores, dtype=torch.float32)
    keep = keep_largest(scores, ratio)
    assert int(keep.sum()) == max(len(scores) - int(ratio * len(scores) + 0.5), 1)
    assert scores[keep].min() >= (scores[~keep].max() if (~keep).any() else -1)
    order = scores.argsort(stable=True, descending=True)  # of equal scores the last ones go
    assert keep[order[: int(keep.sum())]].all()
    assert torch.equal(keep, keep_largest(scores, ratio, torch.full_like(scores, 7.0)))
