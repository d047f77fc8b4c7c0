"""Pooling."""

from __future__ import annotations

from semisparse import _core
from semisparse.runtime.operators.registry import REMEDY, check_sides, native, pair


@native("semisparse.max_pool2d aten.max_pool2d")
def max_pool2d(input, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False, *, out=None):
    return _core.MaxPool2dCall(
        input, pair(kernel_size), pair(stride or kernel_size), pair(padding), pair(dilation), ceil_mode, out
    )


@native("aten.avg_pool2d")
def avg_pool2d(
    input,
    kernel_size,
    stride=(),
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
    *,
    out=None,
):
    kernel, steps, pad = pair(kernel_size), pair(stride or kernel_size), pair(padding)
    if ceil_mode:
        raise ValueError(f"avg_pool2d with ceil_mode; {REMEDY}")
    if not all(
        0 <= 2 * p <= k <= size + 2 * p for k, p, size in zip(kernel, pad, input.shape[-2:], strict=True)
    ):
        raise ValueError(f"avg_pool2d of {input.shape} with kernel {kernel} and padding {pad}: too large")
    windows = [
        [(max(at, 0), min(at + k, size)) for at in range(-p, size + p - k + 1, s)]
        for size, k, s, p in zip(input.shape[-2:], kernel, steps, pad, strict=True)
    ]
    inside = not count_include_pad and any(pad)
    divisor = divisor_override or (0 if inside else kernel[0] * kernel[1])
    return _core.AvgPool2dCall(input, *windows, divisor, out)


@native("aten.adaptive_avg_pool2d")
def adaptive_avg_pool2d(input, output_size, *, out=None):
    check_sides(pair(output_size))
    windows = [
        [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        for size, count in zip(input.shape[-2:], pair(output_size), strict=True)
    ]
    return _core.AvgPool2dCall(input, *windows, 0, out)
