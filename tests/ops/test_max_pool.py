"""Max pooling against torch's own: values, NaN and infinities, layouts, errors, gradients, graphs."""

import pytest
import torch
import torch.nn.functional as F
from cases import LAYOUTS, examples, make_input
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from semisparse.ops import max_pool2d

INF, NAN = float("inf"), float("nan")


def reach(kernel, dilation):
    return dilation * (kernel - 1) + 1


@st.composite
def calls(draw, max_size=40):
    """(input, arguments) that torch accepts; widths cross the vectors of every instruction set."""
    kernel, stride, padding, dilation, size = [], [], [], [], []
    ceil_mode = draw(st.booleans())
    for _ in range(2):
        kernel.append(draw(st.sampled_from([1, 2, 3, 3, 4, 5, 9])))
        stride.append(draw(st.sampled_from([1, 2, 2, 3, 5])))
        padding.append(draw(st.integers(0, kernel[-1] // 2)))
        dilation.append(draw(st.sampled_from([1, 1, 2, 3])))
        smallest = reach(kernel[-1], dilation[-1]) - 2 * padding[-1] - (stride[-1] - 1 if ceil_mode else 0)
        size.append(draw(st.integers(max(1, smallest), max(smallest, max_size))))
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 20)), *size)
    layout, seed = draw(st.sampled_from(LAYOUTS)), draw(st.integers(0, 2**31 - 1))
    x = make_input(shape, layout, torch.Generator().manual_seed(seed))
    special = draw(st.sampled_from([None, None, "rounded", "nan", "infinite", "negative"]))
    if special == "negative":  # zeros outside of the image would show
        x = x - 100
    elif special == "rounded":  # equal values side by side, and both zeros
        x = (2 * x).round()
    elif special is not None:
        x = torch.where(torch.rand(x.shape) < 0.2, NAN if special == "nan" else x.sign() * INF, x)
    return x, (kernel, draw(st.sampled_from([stride, stride, []])), padding, dilation, ceil_mode)


def accepted(x, arguments):
    try:
        return F.max_pool2d(x, arguments[0], arguments[1] or None, *arguments[2:])
    except RuntimeError:  # without a stride there may be no window at all
        return None


def assert_same(result, expected):
    assert result.dtype == torch.float32 and result.is_contiguous()
    torch.testing.assert_close(result, expected.contiguous(), rtol=0, atol=0, equal_nan=True)


@settings(max_examples=examples(400))
@given(call=calls())
@pytest.mark.arm
def test_any_call_equals_torch(ops, call):
    x, arguments = call
    expected = accepted(x, arguments)
    if expected is None:
        with pytest.raises((RuntimeError, ValueError), match="too small"):
            ops.max_pool2d(x, *arguments)
    else:
        assert_same(ops.max_pool2d(x, *arguments), expected)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_nan_anywhere_in_a_window(ops, stride):
    for pixel in range(6 * 37):
        x = torch.ones(1, 1, 6, 37)
        x.view(-1)[pixel] = NAN
        assert_same(ops.max_pool2d(x, [3, 5], stride, 1), F.max_pool2d(x, [3, 5], stride, 1))


def test_arguments_of_the_documented_function():
    x = torch.randn(1, 2, 9, 7)
    assert torch.equal(max_pool2d(x, 3), F.max_pool2d(x, 3))
    assert torch.equal(max_pool2d(x, (2, 3), 1), F.max_pool2d(x, (2, 3), 1))
    y = max_pool2d(x, 3, (2, 1), padding=(1, 0), dilation=2, ceil_mode=True)
    assert torch.equal(y, F.max_pool2d(x, 3, (2, 1), (1, 0), 2, True))


def test_real_layers(ops, poison):
    for shape, arguments in [
        ((2, 64, 112, 112), (3, 2, 1)),
        ((1, 8, 20, 20), (5, 1, 2)),
        ((1, 3, 300, 500), (2, 2)),
    ]:
        x = torch.randn(shape)
        for layout in (torch.contiguous_format, torch.channels_last):
            assert_same(
                ops.max_pool2d(x.contiguous(memory_format=layout), *arguments), F.max_pool2d(x, *arguments)
            )


def test_threads_do_not_change_the_result(ops, threads):
    for shape in [(2, 33, 50, 41), (1, 1, 600, 500)]:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(shape).contiguous(memory_format=layout)
            for count in (1, 2, 3):
                threads(count)
                assert_same(ops.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, 3, 2, 1))


X = torch.randn(2, 4, 6, 7)
BAD_CALLS = {
    "float64": ((X.double(), 2), r"`input` must be float32 or float16, got Double; convert it with \.float"),
    "integer": ((X.int(), 2), r"`input` must be float32 or float16, got Int"),
    "3-d": ((X[0], 2), r"shape \(N, C, H, W\), got shape \[4, 6, 7\]; add the batch dimension"),
    "kernel 0": ((X, 0), r"`kernel_size` must be at least 1 .*got \[0, 0\]"),
    "kernel of three": ((X, [2, 2, 2]), r"`kernel_size` must be one number or \(vertical, horizontal\)"),
    "no kernel": ((X, []), r"`kernel_size` must be one number or \(vertical, horizontal\)"),
    "stride 0": ((X, 2, [1, 0]), r"`stride` must be at least 1 .*got \[1, 0\]"),
    "stride of three": ((X, 2, [1, 1, 1]), r"`stride` must be one number"),
    "padding negative": ((X, 2, 2, -1), r"`padding` must be at least 0"),
    "padding too large": (
        (X, 3, 2, [1, 2]),
        r"`padding` must be at most half of `kernel_size` \[3, 3\], got",
    ),
    "dilation 0": ((X, 2, 2, 0, 0), r"`dilation` must be at least 1"),
    "overflow": ((X, 2**30, 1, 0, 2**30), r"too small: its height is 6"),
    "too small": ((X, 7), r"too small: its height is 6, with padding 6, but the \(dilated\) kernel covers 7"),
    "too narrow": ((X[..., :3], [1, 5], 1, [0, 0]), r"too small: its width is 3"),
    "empty image": ((X[:, :, :0], 3, 1, 1), r"too small: its height is 0"),
    "sparse": ((X.to_sparse(), 2), r"plain \(strided\) CPU tensors, but got a Sparse tensor on cpu"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(ops, name):
    arguments, message = BAD_CALLS[name]
    with pytest.raises((RuntimeError, ValueError), match=message):
        ops.max_pool2d(*arguments)
    if name != "sparse":
        with pytest.raises((RuntimeError, ValueError), match=message):
            ops.max_pool2d(arguments[0].to("meta"), *arguments[1:])


@settings(max_examples=examples(100))
@given(call=calls(max_size=15))
def test_gradients_are_those_of_torch(ops, call):
    x, arguments = call
    if accepted(x, arguments) is None:
        return
    ours, theirs = (x.detach().clone().requires_grad_() for _ in range(2))
    y, expected = ops.max_pool2d(ours, *arguments), accepted(theirs, arguments)
    pooling = (arguments[0], arguments[1] or None, *arguments[2:])
    indices = F.max_pool2d(x, *pooling, return_indices=True)[1]
    if (indices >= x.shape[2] * x.shape[3]).any():
        return  # a window wholly in the padding: torch's own backward pass writes out of bounds, see below
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    y.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    "call", [(2, 1, 1, 2, False), (2, 2, 1, 3, True), ([2, 1], 1, [1, 0], [2, 1], False)]
)
def test_nothing_flows_back_through_a_window_in_the_padding(ops, call):
    """torch's backward pass writes outside the image here (its index of such a window lies there)."""
    x = torch.randn(3, 2, 1, 1, requires_grad=True)
    y = ops.max_pool2d(x, *call)
    assert y.numel() and y.isneginf().all()
    y.backward(torch.ones_like(y))
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_second_derivative(ops):
    x = torch.randperm(72).float().view(1, 2, 6, 6).requires_grad_()

    def second(pool):
        (grad,) = torch.autograd.grad(
            pool(x * x, [3, 3], [2, 2], [1, 1]).square().sum(), x, create_graph=True
        )
        return torch.autograd.grad(grad.sum(), x)[0]

    torch.testing.assert_close(second(ops.max_pool2d), second(F.max_pool2d))


def test_no_graph_where_no_gradient_is_wanted(ops):
    x = torch.randn(1, 2, 5, 5, requires_grad=True)
    assert ops.max_pool2d(x, 2).grad_fn is not None
    with torch.no_grad():
        assert ops.max_pool2d(x, 2).grad_fn is None
    assert ops.max_pool2d(x.detach(), 2).grad_fn is None


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(
    "arguments", [(2,), ([3, 3], [2, 2], [1, 1]), ([3, 2], [3, 2], [1, 1], [1, 2], True)]
)
def test_opcheck(ops, arguments, gradient):
    x = torch.randperm(2 * 3 * 9 * 8).float().view(2, 3, 9, 8).requires_grad_(gradient)
    opcheck(ops.max_pool2d.default, (x, *arguments))


@settings(max_examples=examples(100))
@given(call=calls())
def test_fake_tensors_have_the_metadata_of_real_ones(ops, call):
    x, arguments = call
    if accepted(x, arguments) is None:
        return
    real = ops.max_pool2d(x, *arguments)
    with FakeTensorMode() as mode:
        fake = ops.max_pool2d(mode.from_tensor(x), *arguments)
    assert (fake.shape, fake.dtype, fake.stride(), fake.device) == (
        real.shape, real.dtype, real.stride(), real.device
    )  # fmt: skip


class Pools(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x):
        pool = torch.ops.semisparse.max_pool2d
        y = pool(x * self.scale, [3, 3], [2, 2], [1, 1])
        return pool(y, 2, 2, 1, ceil_mode=True) + pool(y, 5, 1, 2).mean()


def test_compile_with_gradients():
    model, x = Pools(), torch.randn(2, 4, 20, 22)

    def gradient(function):
        model.zero_grad()
        function(x).square().sum().backward()
        return model.scale.grad.clone()

    expected = gradient(model)
    compiled = gradient(torch.compile(model, fullgraph=True, backend="aot_eager"))
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-3)
    torch._dynamo.reset()


def test_export_with_free_sizes():
    model = Pools()
    free = {0: torch.export.Dim("n", max=9), 2: torch.export.Dim("h", min=8, max=512)}
    free[3] = torch.export.Dim("w", min=8, max=512)
    program = torch.export.export(model, (torch.randn(2, 4, 20, 23),), dynamic_shapes=(free,))
    assert [str(n.target) for n in program.graph.nodes].count("semisparse.max_pool2d.default") == 3
    for shape in [(1, 4, 8, 9), (3, 4, 33, 31), (2, 4, 64, 30)]:
        x = torch.randn(shape)
        assert torch.equal(program.module()(x), model(x))


def test_autocast_computes_in_float32(ops):
    x = torch.randn(1, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.max_pool2d(x.bfloat16(), 2)
    assert y.dtype == torch.float32 and torch.equal(y, F.max_pool2d(x.bfloat16().float(), 2))
