"""The structure of zeros is found again, whatever made it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semisparse.structure import Structure, find_structure


@pytest.mark.parametrize(
    "edit, scheme",
    [
        (lambda w: None, "dense"),
        (lambda w: w[3].zero_(), "structured"),
        (lambda w: w[:, 2].zero_(), "structured"),
        (lambda w: w[:, :, 0, 0].zero_(), "pattern"),  # of 8 entries
        (lambda w: (w[:4, :, 0, 0].zero_(), w[4:, :, 1, 1].zero_()), "block_punched"),
        (lambda w: w[1, 2, 0, 0].zero_(), "unstructured"),
        (lambda w: w[1, 2].zero_(), "connectivity"),
        (lambda w: (w[:, :, 0].zero_(), w[:, :, :, 0].zero_(), w[1, 2].zero_()), "pattern"),
        (lambda w: (w[:5, :, 0].zero_(), w[:, 1, 1, :2].zero_()), "unstructured"),
        (lambda w: (w[1, :, 0, 0].zero_(), w[0, 1, 1].zero_()), "unstructured"),  # one without its centre
    ],
)
def test_scheme(edit, scheme):
    weight = torch.rand(8, 4, 3, 3) + 0.1
    edit(weight)
    assert find_structure(weight).scheme == scheme


def test_details_of_patterns():
    weight = torch.rand(16, 8, 3, 3) + 0.1
    for first in range(0, 16, 4):  # four filters share what they keep
        for channel in range(8):
            row, column = torch.randint(0, 2, (2,)).tolist()
            keep = torch.zeros(3, 3, dtype=torch.bool)
            keep[row : row + 2, column : column + 2] = (first + channel) % 4 != 0
            weight[first : first + 4, channel, ~keep] = 0
    shapes = torch.unique((weight != 0).flatten(2).flatten(0, 1), dim=0).sum(1)
    shuffled = weight[torch.randperm(16)]  # also when they are no neighbours
    for each in (weight, shuffled):
        found = find_structure(each)
        assert found == Structure("pattern", int((shapes == 4).sum()), 0.25, (4, 1))
    assert str(found) == f"{found.patterns} patterns, 25% of kernels, 4x1 blocks"
    weight[0, 1] *= weight[0, 1].argmax() != torch.arange(9).view(3, 3)  # training left one more zero
    if weight[0, 1, 1, 1] != 0:
        assert find_structure(weight).patterns == found.patterns


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([2, 4, 8]),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 7),
    st.integers(0, 3),
    st.integers(1, 2),
    st.sampled_from([(), (1, 1), (3, 3), (5, 3)]),
    st.integers(0, 2**31),
)
def test_boxes(filters, channels, ragged_filters, ragged_channels, groups, kernel, seed):
    """Boxes that are wholly zero or full, cut at the edges: found at their size or as multiples of it."""
    generator = torch.Generator().manual_seed(seed)
    groups = groups if kernel else 1
    per_group, inputs = 4 * filters + ragged_filters % filters, 4 * channels + ragged_channels % channels
    positions = torch.Size(kernel).numel()
    shape = (groups, -(-per_group // filters), -(-inputs // channels), positions)
    boxes = torch.rand(shape, generator=generator) > 0.5
    weight = boxes.repeat_interleave(filters, 1)[:, :per_group].repeat_interleave(channels, 2)[:, :, :inputs]
    found = find_structure(weight.reshape(groups * per_group, inputs, *kernel).float(), groups)
    if found.scheme in ("dense", "structured", "connectivity", "pattern"):  # by chance
        return
    assert found.block[0] % filters == 0 and found.block[1] % channels == 0
    if filters * channels >= 4 or (positions == 1 and channels > 2):
        assert found.scheme == ("block_punched" if positions > 1 else "block")


def test_nothing_is_left():
    assert find_structure(torch.zeros(4, 4, 3, 3)).scheme == "structured"
    assert find_structure(torch.zeros(4, 4)).scheme == "structured"
