"""Linear layers and matrix products.

None of them by numpy's BLAS if their numbers are float32: its threads go on spinning for a while after a
product and would take the processors from ours.
"""

from __future__ import annotations

import numpy as np

from semisparse import _core
from semisparse.runtime.operators.registry import (
    BINDERS,
    COMPUTE,
    Array,
    is_float32,
    native,
    register,
    result_type,
)


@native("semisparse.linear")
def packed_linear(input, weight, weight_shape, bias=None, *, activation="none", out=None):
    return _core.LinearCall(input, weight, bias, activation, out)


def _linear(input, weight, bias=None, *, out=None):
    y = matmul(input, weight.T, out=out)
    return y if bias is None else np.add(y, bias, out=y)


@native("aten.linear", otherwise=_linear)
def linear(input, weight, bias=None, *, out=None):
    packed = isinstance(weight, _core.PackedWeight)  # a constant one, prepared as the network was loaded
    return _core.LinearCall(input, weight, bias, "none", out) if packed else None


@register(COMPUTE, "aten.matmul aten.mm aten.bmm")
def matmul(a, b, *, out=None):
    if out is None and a.ndim > 1 and b.ndim > 1:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        out = np.empty(shape, result_type(a, b))
    call = None if out is None else _matmul_call(a, b, out=out)
    if call is None:
        return np.asarray(np.matmul(a, b, out=out))
    call()
    return out


def _matmul_call(a: Array, b: Array, *, out: Array) -> _core.Call | None:
    batch = out.shape[:-2]
    if not (is_float32(a, b, out) and min(a.ndim, b.ndim) > 1 and len(batch) <= 2 and a.size and b.size):
        return None
    batch = (*(1,) * (2 - len(batch)), *batch)
    a, b = (np.broadcast_to(matrices, (*batch, *matrices.shape[-2:])) for matrices in (a, b))
    return _core.MatmulCall(a, b, out.reshape(*batch, *out.shape[-2:]))


BINDERS[matmul] = _matmul_call


@register(COMPUTE, "aten.addmm")
def addmm(input, a, b, *, beta=1, alpha=1, out=None):
    y = matmul(a, b, out=out)
    if alpha != 1:
        np.multiply(y, alpha, out=y)
    return np.add(y, input if beta == 1 else input * np.float32(beta), out=y)
