"""Sizes, and constants that depend on sizes only."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from semisparse.graph import Symbol
from semisparse.runtime.operators.registry import VALUES, dtype_of, register, result_type


@register(VALUES, "aten.sym_size.int")
def sym_size(input, dim):
    return int(input.shape[dim])


@register(VALUES, "aten.sym_numel")
def sym_numel(input):
    return int(input.size)


def _number_dtype(value: Any, dtype: Symbol | None) -> np.dtype:
    return dtype_of(dtype, result_type(value))


@register(VALUES, "aten.full aten.scalar_tensor")
def full(size, fill_value=None, *, dtype=None, **_):
    if fill_value is None:  # scalar_tensor: its one argument is the value
        return np.array(size, dtype_of(dtype))
    return np.full(size, fill_value, _number_dtype(fill_value, dtype))


@register(VALUES, "aten.zeros")
def zeros(size, *, dtype=None, **_):
    return np.zeros(size, dtype_of(dtype))


@register(VALUES, "aten.ones")
def ones(size, *, dtype=None, **_):
    return np.ones(size, dtype_of(dtype))


@register(VALUES, "aten.arange aten.arange.start aten.arange.start_step")
def arange(*bounds, dtype=None, **_):
    return np.arange(*bounds).astype(_number_dtype(sum(bounds), dtype))


@register(VALUES, "aten.full_like aten.new_full")
def full_like(input, *rest, dtype=None, **_):
    *size, value = rest
    return np.full(size[0] if size else input.shape, value, dtype_of(dtype, input.dtype))


@register(VALUES, "aten.zeros_like aten.new_zeros")
def zeros_like(input, size=None, *, dtype=None, **_):
    return np.zeros(input.shape if size is None else size, dtype_of(dtype, input.dtype))


@register(VALUES, "aten.ones_like aten.new_ones")
def ones_like(input, size=None, *, dtype=None, **_):
    return np.ones(input.shape if size is None else size, dtype_of(dtype, input.dtype))


for _name in ("add", "sub", "mul", "floordiv", "mod", "neg"):
    VALUES[f"operator.{_name}"] = getattr(operator, _name)
