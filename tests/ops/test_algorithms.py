"""Which algorithm runs: forced, preferred, chosen; every algorithm gives the same convolution."""

from __future__ import annotations

import pytest
import torch
from cases import cases, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_matches

from semisparse import algorithms, ops


@settings(max_examples=examples(60), deadline=None)
@given(case=cases(), name=st.sampled_from(algorithms.ALGORITHMS))
@pytest.mark.arm
def test_every_algorithm_computes_the_formula(case, name):
    input, weight, *rest = case.args
    packed = ops.pack_weight(weight, case.groups)
    with algorithms.forced(name):
        y = ops.conv2d_packed(input, packed, weight.shape, *rest, **case.kwargs)
    assert_matches(y, case.args, case.kwargs)


GEMM = ("im2col", "direct")  # what is left where Winograd does not pay or apply


def layer(size=24, channels=64, generator=None):
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(channels, channels, 3, 3, generator=g)
    return torch.randn(1, channels, size, size, generator=g), weight, ops.pack_weight(weight)


def run(input, weight, packed):
    return ops.conv2d_packed(input, packed, weight.shape, padding=1)


def test_the_choice_follows_shape_and_sparsity():
    _, weight, packed = layer()
    same = {"padding": (1, 1)}
    assert algorithms.chosen(packed, (24, 24), **same).startswith("winograd")
    assert algorithms.chosen(packed, (24, 24), (2, 2), **same) in GEMM
    # Single weights left in nearly all kernels: Winograd would multiply whole kernels.
    kept = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < 0.1
    thin = torch.where(kept, weight, 0.0)
    assert algorithms.chosen(ops.pack_weight(thin), (24, 24), **same) in GEMM
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[::4, ::4] = True  # a pixel in every tile
    assert algorithms.chosen(packed, (24, 24), **same, mask=mask) in GEMM


def test_forcing_and_preferring_change_what_runs():
    input, weight, packed = layer()
    with algorithms.forced("im2col"):
        exact = run(input, weight, packed)
        with algorithms.forced("winograd4"):
            assert algorithms.chosen(packed, (24, 24), padding=(1, 1)) == "winograd4"
            fast = run(input, weight, packed)
        assert torch.equal(run(input, weight, packed), exact)
    assert not torch.equal(fast, exact)
    torch.testing.assert_close(fast, exact, atol=1e-4 * exact.abs().max().item(), rtol=0)
    algorithms.prefer(packed, (24, 24), "im2col")
    assert torch.equal(run(input, weight, packed.clone()), exact)  # known by its content
    assert algorithms.chosen(packed, (20, 20), padding=(1, 1)) != "im2col"  # another size
    algorithms.prefer(packed, (24, 24), algorithms.AUTOMATIC)
    assert algorithms.chosen(packed, (24, 24), padding=(1, 1)) != "im2col"


def test_bad_names_and_masks_are_refused_in_words():
    _, _, packed = layer()
    with pytest.raises(ValueError, match="unknown algorithm 'fft'.*im2col, direct, winograd4"):
        torch.ops.semisparse.force_algorithm("fft")
    with pytest.raises(RuntimeError, match=r"mask.*must be bool \(24, 24\)"):
        algorithms.chosen(packed, (24, 24), padding=(1, 1), mask=torch.ones(3, 3, dtype=torch.bool))
    algorithms.prefer(packed, (24, 24), "winograd4")
    try:
        with pytest.raises(ValueError, match="tune the model again"):
            algorithms.chosen(packed, (24, 24), (2, 2), (1, 1))
    finally:
        algorithms.prefer(packed, (24, 24), "automatic")
