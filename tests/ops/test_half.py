"""float16 tensors: every argument against the formula in float64 with the same rounded values."""

import pytest
import torch
from cases import LAYOUTS, MASKS, cases, examples, make_input, make_mask, make_weight
from hypothesis import given, settings
from reference import ACTIVATIONS, double, reference

from semisparse import algorithms

pytestmark = pytest.mark.usefixtures("poison")

# Of the largest output before the activation. Rounding the result is 2^-11 of it at most; where products are
# summed in float16 (some 64 at a time), their roundings are added.
ERROR = 4e-3


def half(value):
    return value.half() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def call(ops, args, kwargs):
    """Results of both overloads, all arguments rounded to float16; weights are packed as float32."""
    input, weight, *rest = [half(a) for a in args]
    kwargs = {k: half(v) for k, v in kwargs.items()}
    yield ops.conv2d(input, weight, *rest, **kwargs)
    packed = ops.pack_weight(weight.float(), rest[4] if len(rest) > 4 else 1)
    yield ops.conv2d.packed(input, packed, list(weight.shape), *rest, **kwargs)


def check(y, args, kwargs):
    args, kwargs = [double(half(a)) for a in args], {k: double(half(v)) for k, v in kwargs.items()}
    expected, sums = reference(*args, **kwargs), reference(*args, **kwargs | {"activation": "none"})
    assert y.dtype == torch.float16 and y.shape == expected.shape and y.is_contiguous()
    assert not y.isnan().any(), "an output element was not written, or holds NaN"
    largest = max(1.0, sums.abs().max().item()) if sums.numel() else 1.0
    assert y.numel() == 0 or (y.double() - expected).abs().max() < ERROR * largest


@settings(max_examples=examples(150))
@given(case=cases())
@pytest.mark.arm
def test_any_call_matches_the_formula(ops, case):
    for y in call(ops, case.args, case.kwargs):
        check(y, case.args, case.kwargs)


@pytest.mark.parametrize("algorithm", ["im2col", "direct", "winograd4", "automatic"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.arm
def test_every_algorithm_with_every_mask(ops, algorithm, mask):
    g = torch.Generator().manual_seed(0)
    for sparsity, channels in (("dense", 9), ("pattern", 70)):
        args = (
            make_input((2, channels, 11, 13), LAYOUTS[channels % len(LAYOUTS)], g),
            make_weight((10, channels, 3, 3), sparsity, g),
            torch.randn(10, generator=g),
            1,
            1,
        )
        kwargs = dict(mask=make_mask((11, 13), mask, g), fill=torch.randn(10, generator=g), activation="relu")
        with algorithms.forced(algorithm):
            for y in call(ops, args, kwargs):
                check(y, args, kwargs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.arm
def test_activations_and_residuals(ops, activation):
    g = torch.Generator().manual_seed(1)
    args = (torch.randn(1, 4, 9, 17, generator=g), torch.randn(6, 4, 1, 1, generator=g))
    kwargs = dict(activation=activation, residual=4 * torch.randn(1, 6, 9, 17, generator=g))
    for y in call(ops, args, kwargs):
        check(y, args, kwargs)


@pytest.mark.arm
def test_sums_of_many_products_stay_accurate(ops):
    """4608 products: in float16 from end to end they would be wrong in the third digit."""
    g = torch.Generator().manual_seed(2)
    args = (torch.rand(1, 512, 7, 7, generator=g), 0.05 * torch.rand(8, 512, 3, 3, generator=g), None, 1, 1)
    for y in call(ops, args, {}):
        check(y, args, {})


def test_too_large_results_are_infinite(ops):
    x, w = torch.full((1, 4, 3, 20), 300.0), torch.full((1, 4, 1, 1), 300.0)
    for y in call(ops, (x, w), {}):
        assert y.isinf().all()


def test_the_result_does_not_depend_on_threads(ops, threads):
    g = torch.Generator().manual_seed(3)
    args = (torch.randn(1, 40, 20, 20, generator=g), make_weight((24, 40, 3, 3), "pattern", g), None, 1, 1)
    results = []
    for count in (1, 3):
        threads(count)
        results.append(list(call(ops, args, {})))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_gradients(ops):
    g = torch.Generator().manual_seed(4)
    x, w = torch.randn(2, 4, 8, 9, generator=g), torch.randn(6, 4, 3, 3, generator=g)
    gradients = []
    for cast in (half, double):
        inputs = [cast(half(x)).requires_grad_(), cast(half(w)).requires_grad_()]
        function = ops.conv2d if cast is half else reference
        function(*inputs, None, 1, 1, activation="relu").sum().backward()
        gradients.append([i.grad.double() for i in inputs])
    for got, expected in zip(*gradients, strict=True):
        assert (got - expected).abs().max() < 0.01 * expected.abs().max()
    packed_input = half(x).requires_grad_()
    ops.conv2d.packed(
        packed_input, ops.pack_weight(half(w).float()), list(w.shape), None, 1, 1, activation="relu"
    ).sum().backward()
    assert torch.allclose(
        packed_input.grad.double(), gradients[1][0], atol=0.01 * gradients[1][0].abs().max()
    )


def test_opcheck_and_compile(ops):
    g = torch.Generator().manual_seed(5)
    x, w = half(torch.randn(1, 4, 8, 9, generator=g)), half(torch.randn(6, 4, 3, 3, generator=g))
    torch.library.opcheck(ops.conv2d.default, (x, w, half(torch.randn(6)), 1, 1))
    compiled = torch.compile(lambda x: ops.conv2d(x, w, None, 1, 1), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), ops.conv2d(x, w, None, 1, 1))


def test_linear_and_max_pool_take_float16(ops):
    g = torch.Generator().manual_seed(6)
    x, w, b = torch.randn(3, 20, generator=g), torch.randn(7, 20, generator=g), torch.randn(7, generator=g)
    y = ops.linear(x.half(), ops.pack_weight(w), [7, 20], b.half(), activation="relu")
    expected = torch.relu(x.half().double() @ w.double().T + b.half().double())
    assert y.dtype == torch.float16 and (y.double() - expected).abs().max() < 1e-3 * expected.max()
    image = torch.randn(1, 3, 9, 10, generator=g).half()
    pooled = ops.max_pool2d(image, [3, 3], [2, 2], [1, 1])
    assert pooled.dtype == torch.float16
    assert torch.equal(pooled, torch.nn.functional.max_pool2d(image, 3, 2, 1))
