"""Images of another size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from semisparse import _core
from semisparse.runtime.operators.registry import COMPUTE, Array, check_sides, copied, native, register


def _output_size(input: Array, size: Sequence[int] | None, scales: Sequence[float] | None) -> list[int]:
    if size is not None:
        return list(size)
    return [math.floor(length * scale) for length, scale in zip(input.shape[-2:], scales, strict=True)]


def _upsample_nearest(
    input: Array, size: list[int], scales: Sequence[float | None], out: Array | None
) -> _core.Call:
    check_sides(size)
    rows, columns = (
        np.minimum(np.floor(np.arange(n, dtype=np.float32) * np.float32(_step(length, n, s))), length - 1)
        .astype(int)
        .tolist()
        for length, n, s in zip(input.shape[-2:], size, scales, strict=True)
    )
    return _core.UpsampleNearest2dCall(input, rows, columns, out)


def _step(length: int, size: int, scale: float | None) -> float:
    """Input pixels for each output pixel."""
    return 1 / scale if scale is not None and scale > 0 else length / size


def _upsample_bilinear(
    input: Array, size: list[int], align: bool, scales: Sequence[float | None], out: Array | None
) -> Array:
    one = np.float32(1)
    taps = []
    for length, n, scale in zip(input.shape[-2:], size, scales, strict=True):
        if align:
            at = np.arange(n, dtype=np.float32) * np.float32((length - 1) / (n - 1) if n > 1 else 0)
        else:
            step = np.float32(_step(length, n, scale))
            at = np.maximum((np.arange(n, dtype=np.float32) + np.float32(0.5)) * step - np.float32(0.5), 0)
        low = np.minimum(at.astype(int), length - 1)
        taps.append((low, np.minimum(low + 1, length - 1), at - low.astype(np.float32)))
    (top, bottom, y), (left, right, x) = taps
    x, y = x.astype(input.dtype), y[:, None].astype(input.dtype)
    rows = input[..., top, :] * (one - y) + input[..., bottom, :] * y
    result = rows[..., left] * (one - x) + rows[..., right] * x
    if out is None:
        return np.ascontiguousarray(result)
    out[...] = result
    return out


@native("aten.upsample_nearest2d.vec")
def upsample_nearest2d_vec(input, output_size, scale_factors, *, out=None):
    size = _output_size(input, output_size, scale_factors)
    return _upsample_nearest(input, size, scale_factors or (None, None), out)


@native("aten.upsample_nearest2d")
def upsample_nearest2d(input, output_size, scales_h=None, scales_w=None, *, out=None):
    return _upsample_nearest(input, list(output_size), (scales_h, scales_w), out)


@register(COMPUTE, "aten.upsample_bilinear2d.vec")
def upsample_bilinear2d_vec(input, output_size, align_corners, scale_factors, *, out=None):
    size = _output_size(input, output_size, scale_factors)
    return _upsample_bilinear(input, size, align_corners, scale_factors or (None, None), out)


@register(COMPUTE, "aten.upsample_bilinear2d")
def upsample_bilinear2d(input, output_size, align_corners, scales_h=None, scales_w=None, *, out=None):
    return _upsample_bilinear(input, list(output_size), align_corners, (scales_h, scales_w), out)


@register(COMPUTE, "aten.pixel_shuffle")
def pixel_shuffle(input, upscale_factor, *, out=None):
    *outer, channels, height, width = input.shape
    r, n = upscale_factor, len(outer)
    blocks = input.reshape(*outer, channels // (r * r), r, r, height, width)
    moved = blocks.transpose(*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return copied(moved, out, (*outer, channels // (r * r), height * r, width * r))
