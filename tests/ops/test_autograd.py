"""Gradients of both overloads against those of the formula in float64."""

import pytest
import torch
from cases import cases, examples
from hypothesis import given, settings
from reference import ACTIVATIONS, double, reference

NAMES = ("input", "weight", "bias", "fill", "residual")


def leaves(args, kwargs, convert):
    """The call with every float tensor a new leaf that requires a gradient, and these leaves by name."""
    named = dict(zip(NAMES[:3], args[:3], strict=True)) | {name: kwargs.get(name) for name in NAMES[3:]}
    named = {n: convert(v).detach().clone().requires_grad_() for n, v in named.items() if v is not None}
    new_args = (*(named.get(name) for name in NAMES[:3]), *args[3:])
    return new_args, {k: named.get(k, v) for k, v in kwargs.items()}, named


def assert_same_gradients(found, expected, skip=()):
    for name, leaf in expected.items():
        if name in skip:
            continue
        grad = found[name].grad
        assert grad is not None, f"{name} got no gradient"
        expected_grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        scale = expected_grad.abs().max().clamp(min=1)
        torch.testing.assert_close(
            grad.double(),
            expected_grad,
            rtol=1e-4,
            atol=2e-5 * scale.item(),
            msg=lambda m, n=name: f"{n}: {m}",
        )


def away_from_kinks(z, activation):
    """Rounding must not put float32 and float64 on different sides of a kink."""
    kinks = {"relu": [0], "relu6": [0, 6], "leaky_relu": [0], "hardswish": [-3, 3]}.get(activation, [])
    return all((z - kink).abs().min() > 1e-4 or (z[(z - kink).abs() < 1e-4] == kink).all() for kink in kinks)


@settings(max_examples=examples(120))
@given(case=cases(max_size=9, max_channels=8))
def test_any_call_has_the_gradients_of_the_formula(ops, case):
    args, kwargs, wanted = leaves(case.args, case.kwargs, double)
    z = reference(*args, **(kwargs | {"activation": "none"}))
    if not away_from_kinks(z.detach(), case.kwargs["activation"]):
        return
    y = reference(*args, **kwargs)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    y.backward(upstream.double())

    args, kwargs, found = leaves(case.args, case.kwargs, lambda t: t)
    ops.conv2d(*args, **kwargs).backward(upstream)
    assert_same_gradients(found, wanted)

    args, kwargs, found = leaves(case.args, case.kwargs, lambda t: t)
    packed = ops.pack_weight(args[1], case.groups)
    assert not packed.requires_grad
    y = ops.conv2d.packed(args[0], packed, list(args[1].shape), *args[2:], **kwargs)
    assert y.requires_grad
    y.backward(upstream)
    assert_same_gradients(found, wanted, skip=["weight"])


@pytest.mark.parametrize("wanted", NAMES)
def test_one_gradient_at_a_time(ops, wanted):
    g = torch.Generator().manual_seed(0)
    tensors = {
        "input": torch.randn(2, 4, 6, 6, generator=g),
        "weight": torch.randn(4, 4, 3, 3, generator=g),
        "bias": torch.randn(4, generator=g),
        "fill": torch.randn(4, generator=g),
        "residual": torch.randn(2, 4, 6, 6, generator=g),
    }
    mask = torch.rand(6, 6, generator=g) < 0.6

    def call(function, values):
        extra = dict(mask=mask, fill=values["fill"], residual=values["residual"], activation="silu")
        return function(values["input"], values["weight"], values["bias"], 1, 1, **extra)

    found = {n: t.clone().requires_grad_(n == wanted) for n, t in tensors.items()}
    expected = {n: t.double().requires_grad_(n == wanted) for n, t in tensors.items()}
    call(ops.conv2d, found).sum().backward()
    call(reference, expected).sum().backward()
    torch.testing.assert_close(found[wanted].grad.double(), expected[wanted].grad, rtol=1e-4, atol=1e-4)
    assert all(t.grad is None for n, t in found.items() if n != wanted)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("packed", [False, True])
def test_second_derivatives(ops, activation, packed):
    g = torch.Generator().manual_seed(1)
    x, w = torch.randn(1, 3, 5, 5, generator=g), torch.randn(2, 3, 3, 3, generator=g)
    mask = torch.rand(5, 5, generator=g) < 0.7

    def hessian_vector(function, x):
        x = x.clone().requires_grad_()
        y = function(x)
        (grad,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((grad * torch.ones_like(grad)).sum(), x)
        return second

    extra = dict(mask=mask, activation=activation)
    if packed:
        data = ops.pack_weight(w)
        found = hessian_vector(lambda x: ops.conv2d.packed(x, data, [2, 3, 3, 3], None, 1, 1, **extra), x)
    else:
        found = hessian_vector(lambda x: ops.conv2d(x, w, None, 1, 1, **extra), x)
    expected = hessian_vector(lambda x: reference(x, w.double(), None, 1, 1, **extra), x.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def test_modes_without_gradients_record_nothing(ops):
    x, w = torch.randn(1, 3, 5, 5), torch.randn(2, 3, 3, 3, requires_grad=True)
    with torch.no_grad():
        assert not ops.conv2d(x, w).requires_grad
    with torch.inference_mode():
        assert ops.conv2d(x, w).is_inference()
    assert ops.conv2d(x, w).requires_grad
    assert not ops.conv2d(x, w.detach()).requires_grad


def test_forward_mode_is_refused_rather_than_zero(ops):
    x, w = torch.randn(1, 3, 5, 5), torch.randn(2, 3, 3, 3)
    packed = ops.pack_weight(w)
    for function in (
        lambda x: ops.conv2d(x, w),
        lambda x: ops.conv2d.packed(x, packed, [2, 3, 3, 3]),
        lambda x: ops.max_pool2d(x, 2),
    ):
        with pytest.raises(RuntimeError, match="no forward-mode derivative; use reverse mode"):
            torch.func.jvp(function, (x,), (x,))


def test_weights_changed_before_backward_are_noticed(ops):
    x, w = torch.randn(1, 3, 5, 5, requires_grad=True), torch.randn(2, 3, 3, 3)
    y = ops.conv2d(x, w)
    w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_small_network_learns_through_the_operator(ops):
    torch.manual_seed(0)
    x = torch.randn(64, 1, 8, 8)
    target = (x[:, 0, 2, 3] > x[:, 0, 5, 5]).float()
    mask = torch.rand(8, 8) < 0.8
    w = torch.nn.Parameter(0.3 * torch.randn(4, 1, 3, 3))
    head = torch.nn.Linear(4 * 64, 1)
    optimizer = torch.optim.Adam([w, *head.parameters()], lr=0.02)
    losses = []
    for _ in range(40):
        features = ops.conv2d(x, w, None, 1, 1, mask=mask, activation="silu")
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(features.flatten(1))[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
