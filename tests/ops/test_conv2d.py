"""Values: every argument of both overloads against the formula in float64."""

import itertools

import pytest
import torch
from cases import LAYOUTS, MASKS, SPARSITIES, cases, examples, make_input, make_mask, make_weight
from hypothesis import given, settings
from reference import ACTIVATIONS, assert_matches

from semisparse import algorithms

pytestmark = pytest.mark.usefixtures("poison")


def both_overloads(ops, args, kwargs):
    """Results of the plain and the packed overload; the packed one twice, prepared anew and from the
    cache."""
    input, weight, *rest = args
    groups = rest[4] if len(rest) > 4 else 1
    packed = ops.pack_weight(weight, groups)
    yield ops.conv2d(*args, **kwargs)
    for _ in range(2):
        yield ops.conv2d.packed(input, packed, list(weight.shape), *rest, **kwargs)


@settings(max_examples=examples(500))
@given(case=cases())
@pytest.mark.arm
def test_any_call_matches_the_formula(ops, case):
    for y in both_overloads(ops, case.args, case.kwargs):
        assert_matches(y, case.args, case.kwargs)


@settings(max_examples=examples(25))
@given(case=cases(max_size=64, max_channels=80))
def test_larger_calls_match_the_formula(ops, case):
    for y in both_overloads(ops, case.args, case.kwargs):
        assert_matches(y, case.args, case.kwargs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.arm
def test_every_layout_with_every_sparsity(ops, layout, sparsity):
    g = torch.Generator().manual_seed(1)
    args = (make_input((2, 9, 11, 13), layout, g), make_weight((10, 9, 3, 3), sparsity, g), None, 1, 1)
    for y in both_overloads(ops, args, {}):
        assert_matches(y, args, {})


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.arm
def test_every_activation_with_every_mask(ops, activation, mask):
    g = torch.Generator().manual_seed(2)
    args = (
        torch.randn(2, 8, 9, 17, generator=g),
        torch.randn(7, 8, 3, 3, generator=g),
        torch.randn(7, generator=g),
        1,
        1,
    )
    for fill, residual in itertools.product(
        [None, torch.randn(7, generator=g)], [None, torch.randn(2, 7, 9, 17)]
    ):
        kwargs = dict(mask=make_mask((9, 17), mask, g), fill=fill, activation=activation, residual=residual)
        for y in both_overloads(ops, args, kwargs):
            assert_matches(y, args, kwargs)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 15, 16, 17, 31, 33, 95, 96, 97])
@pytest.mark.arm
def test_widths_around_vectors_and_panels(ops, size):
    g = torch.Generator().manual_seed(3)
    args = (torch.randn(1, 5, 3, size, generator=g), torch.randn(6, 5, 3, 3, generator=g), None, 1, 1)
    for kind in ("random", None):
        kwargs = dict(mask=make_mask((3, size), kind, g))
        for y in both_overloads(ops, args, kwargs):
            assert_matches(y, args, kwargs)


@pytest.mark.parametrize("channels", [63, 64, 65, 130, 513])
def test_channel_counts_around_row_chunks(ops, channels):
    g = torch.Generator().manual_seed(4)
    args = (
        torch.randn(1, channels, 5, 6, generator=g),
        make_weight((9, channels, 3, 3), "unstructured", g),
        None,
        1,
        1,
    )
    for y in both_overloads(ops, args, {}):
        assert_matches(y, args, {})


@pytest.mark.parametrize("size", [56, 28, 14, 7])
def test_resnet_layers(ops, size):
    g = torch.Generator().manual_seed(5)
    c = 64 * 56 // size
    args = (
        torch.randn(1, c, size, size, generator=g),
        make_weight((c, c, 3, 3), "pattern", g),
        torch.randn(c),
        1,
        1,
    )
    kwargs = dict(mask=make_mask((size, size), "random", g), fill=torch.randn(c), activation="relu")
    for y in both_overloads(ops, args, kwargs):
        assert_matches(y, args, kwargs)


def test_empty_batch(ops):
    args = (torch.randn(0, 4, 5, 6), torch.randn(3, 4, 3, 3))
    for y in both_overloads(ops, args, {"residual": torch.empty(0, 3, 3, 4)}):
        assert y.shape == (0, 3, 3, 4)


def test_scalar_geometry_arguments_stand_for_both_axes(ops):
    x, w = torch.randn(1, 4, 9, 9), torch.randn(4, 4, 3, 3)
    assert torch.equal(ops.conv2d(x, w, None, 2, 1, 2), ops.conv2d(x, w, None, [2, 2], [1, 1], [2, 2]))


def test_skipped_pixels_read_nothing(ops):
    """NaN in the receptive field of skipped pixels only must not reach any output."""
    x, w = torch.randn(1, 3, 12, 12), torch.randn(4, 3, 3, 3)
    mask = torch.ones(12, 12, dtype=torch.bool)
    mask[4:9, 4:9] = False
    x[:, :, 6, 6] = float("nan")  # seen by the pixels 5..7 only
    kwargs = dict(mask=mask, fill=torch.arange(4.0))
    for y in both_overloads(ops, (x, w, None, 1, 1), kwargs):
        assert y.isfinite().all()
        assert torch.equal(y[0, :, ~mask], torch.arange(4.0)[:, None].expand(4, 25))


def test_infinite_and_nan_inputs_reach_the_outputs_that_see_them(ops):
    x, w = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 3, 3)
    x[0, 0, 2, 2], x[0, 0, 6, 6] = float("inf"), float("nan")
    expected = torch.nn.functional.conv2d(x, w, padding=1)
    for algorithm in ("im2col", "direct"):  # with Winograd they reach all outputs of a tile
        with algorithms.forced(algorithm):
            for y in both_overloads(ops, (x, w, None, 1, 1), {}):
                assert torch.equal(y.isnan(), expected.isnan()) and torch.equal(y.isinf(), expected.isinf())
                assert torch.equal(y[expected.isfinite()], expected[expected.isfinite()])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_at_extreme_values(ops, activation):
    x = torch.tensor(
        [0.0, -0.0, 1e-30, -1e-30, 3, -3, 6, 6.5, 20, -20, 88, -88, 100, -100, 1e4, -1e4, 1e30, -1e30]
    )
    args = (x.reshape(1, 1, 1, -1), torch.ones(1, 1, 1, 1))
    for y in both_overloads(ops, args, {"activation": activation}):
        assert_matches(y, args, {"activation": activation})


def test_conjugate_view_and_negated_inputs(ops):
    """Tensors with a lazily applied negation are real numbers like all others."""
    x = torch.imag(torch.conj(torch.randn(1, 3, 5, 5, dtype=torch.complex64)))
    assert x.is_neg()
    args = (x, torch.randn(2, 3, 3, 3))
    for y in both_overloads(ops, args, {}):
        assert_matches(y, (x.resolve_neg().clone(), args[1]), {})
