"""Softmax, sums, means and extremes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semisparse import _core
from semisparse.runtime.operators.registry import (
    COMPUTE,
    axes,
    dtype_of,
    elementwise,
    float_type,
    native,
    register,
)


@native("aten.softmax.int aten._softmax")
def softmax(input, dim, dtype=None, *, out=None):
    return _core.SoftmaxCall(input, dim, out)


@register(COMPUTE, "aten.log_softmax.int")
def log_softmax(input, dim, dtype=None, *, out=None):
    y = elementwise(np.subtract, input, input.max(axis=dim, keepdims=True), out=out, dtype=float_type(input))
    return np.subtract(y, np.log(np.exp(y).sum(axis=dim, keepdims=True)), out=y)


def _reduction(names: str, function: Callable, floats: bool) -> None:
    @register(COMPUTE, names)
    def reduce(input, dim=None, keepdim=False, dtype=None, *, out=None):
        wanted = None if dtype is None else dtype_of(dtype)
        if wanted is None and floats:
            wanted = float_type(input)
        options = {} if wanted is None else {"dtype": wanted}
        return np.asarray(function(input, axis=axes(dim), keepdims=keepdim, out=out, **options))


_reduction("aten.mean aten.mean.dim", np.mean, True)
_reduction("aten.sum aten.sum.dim_IntList", np.sum, False)
_reduction("aten.amax", np.amax, False)
_reduction("aten.amin", np.amin, False)
