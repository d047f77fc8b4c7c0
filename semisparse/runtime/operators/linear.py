"""Linear layers and matrix products."""

from __future__ import annotations

import numpy as np

from semisparse import _core
from semisparse.runtime.operators.registry import COMPUTE, Array, native, register, result_type


@native("semisparse.linear")
def packed_linear(input, weight, weight_shape, bias=None, *, activation="none", out=None):
    return _core.LinearCall(input, weight, bias, activation, out)


@register(COMPUTE, "aten.linear")
def linear(input, weight, bias=None, *, out=None):
    y = _matmul(input, weight.T, out)
    return y if bias is None else np.add(y, bias, out=y)


def _matmul(a: Array, b: Array, out: Array | None) -> Array:
    if out is None and a.ndim > 1 and b.ndim > 1:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        out = np.empty(shape, result_type(a, b))
    return np.asarray(np.matmul(a, b, out=out))


@register(COMPUTE, "aten.matmul aten.mm aten.bmm")
def matmul(a, b, *, out=None):
    return _matmul(a, b, out)


@register(COMPUTE, "aten.addmm")
def addmm(input, a, b, *, beta=1, alpha=1, out=None):
    y = _matmul(a, b, out)
    if alpha != 1:
        np.multiply(y, alpha, out=y)
    return np.add(y, input if beta == 1 else input * np.float32(beta), out=y)
