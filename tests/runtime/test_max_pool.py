"""Max pooling of the numpy runtime against sliding windows of plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semisparse import runtime


def reference(x, kernel, stride, padding, dilation):
    """Windows of the image inside -infinity; np.max propagates NaN."""
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=-np.inf)
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return windows.max(axis=(-2, -1))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_call_matches_numpy(data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kernel, stride, dilation = (
        tuple(draw(st.sampled_from(choices)) for _ in range(2))
        for choices in ([1, 2, 3, 5], [1, 2, 3], [1, 2])
    )
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    shape = (draw(st.integers(0, 2)), draw(st.integers(0, 5)), *(draw(st.integers(10, 40)) for _ in range(2)))
    x = rng.standard_normal(shape, dtype=np.float32) - draw(st.sampled_from([0, 50]))
    x[rng.random(shape) < draw(st.sampled_from([0, 0.1]))] = np.nan
    layout = draw(st.sampled_from(["C", "nhwc", "reversed"]))
    if layout == "nhwc":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "reversed":
        x = x[..., ::-1]
    expected = reference(x, kernel, stride, padding, dilation)
    y = runtime.max_pool2d(x, kernel, stride, padding, dilation)
    assert y.dtype == np.float32 and y.flags.c_contiguous
    np.testing.assert_array_equal(y, expected)


def test_stride_of_the_kernel_and_ceil_mode():
    x = np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7)
    assert runtime.max_pool2d(x, 3).shape == (1, 1, 2, 2)
    y = runtime.max_pool2d(x, 3, ceil_mode=True)
    assert y.shape == (1, 1, 3, 3) and y[0, 0, 2].tolist() == [44, 47, 48]
    # The last window would start in the padding on the right: it does not count.
    assert runtime.max_pool2d(x[..., :6, :6], 2, 3, 1, ceil_mode=True).shape == (1, 1, 3, 3)
    assert runtime.max_pool2d(x[..., :5, :5], 2, 3, 1, ceil_mode=True).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(input=np.zeros((1, 1, 4, 4))), "`input` must be float32.*float64"),
        (dict(input=np.zeros((4, 4), np.float32)), r"shape \(N, C, H, W\)"),
        (dict(kernel_size=0), "kernel_size.*at least 1"),
        (dict(kernel_size=1.5), "`kernel_size` must be whole numbers"),
        (dict(kernel_size=5), "smaller than the kernel's reach of 5 x 5"),
        (dict(stride=0), "stride.*at least 1"),
        (dict(stride=(1, 2, 3)), "`stride` must be one number or"),
        (dict(padding=2), "padding.*half of the kernel"),
        (dict(dilation=0), "dilation.*at least 1"),
        (dict(dilation=2**30), "dilation"),
    ],
)
def test_bad_calls(arguments, message):
    call = dict(input=np.zeros((1, 1, 4, 4), np.float32), kernel_size=2) | arguments
    with pytest.raises(ValueError, match=message):
        runtime.max_pool2d(**call)
