"""Pooling."""

from __future__ import annotations

import numpy as np

from semisparse import _core
from semisparse.runtime.operators.registry import COMPUTE, REMEDY, native, pair, register


@native("semisparse.max_pool2d aten.max_pool2d")
def max_pool2d(input, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False, *, out=None):
    return _core.MaxPool2dCall(
        input, pair(kernel_size), pair(stride or kernel_size), pair(padding), pair(dilation), ceil_mode, out
    )


@register(COMPUTE, "aten.avg_pool2d")
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
    rows, columns = (
        (size + 2 * p - k) // s + 1
        for size, k, s, p in zip(input.shape[-2:], kernel, steps, pad, strict=True)
    )
    padded = np.pad(input, [(0, 0)] * (input.ndim - 2) + [(p, p) for p in pad]) if any(pad) else input
    out = np.empty((*input.shape[:-2], rows, columns), input.dtype) if out is None else out
    out.fill(0)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            last = (i + (rows - 1) * steps[0] + 1, j + (columns - 1) * steps[1] + 1)
            out += padded[..., i : last[0] : steps[0], j : last[1] : steps[1]]
    if divisor_override or count_include_pad or not any(pad):
        out *= input.dtype.type(1 / (divisor_override or kernel[0] * kernel[1]))
        return out
    inside = [
        [min(i * s - p + k, size) - max(i * s - p, 0) for i in range(count)]
        for size, k, s, p, count in zip(input.shape[-2:], kernel, steps, pad, (rows, columns), strict=True)
    ]
    return np.divide(out, np.outer(*inside).astype(input.dtype), out=out)


@register(COMPUTE, "aten.adaptive_avg_pool2d")
def adaptive_avg_pool2d(input, output_size, *, out=None):
    rows, columns = pair(output_size)
    height, width = input.shape[-2:]
    if out is None:
        out = np.empty((*input.shape[:-2], rows, columns), input.dtype)
    if (rows, columns) == (1, 1):
        return np.mean(input, axis=(-2, -1), keepdims=True, out=out)
    if height % rows == 0 and width % columns == 0:
        blocks = input.reshape(*input.shape[:-2], rows, height // rows, columns, width // columns)
        return np.mean(blocks, axis=(-3, -1), out=out)
    for i in range(rows):
        for j in range(columns):
            window = input[
                ...,
                i * height // rows : -(-(i + 1) * height // rows),
                j * width // columns : -(-(j + 1) * width // columns),
            ]
            np.mean(window, axis=(-2, -1), out=out[..., i, j])
    return out
