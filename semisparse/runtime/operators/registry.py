"""The tables of operators, and what they share: PyTorch's types, results in given memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from semisparse.graph import Symbol

Array = np.ndarray
REMEDY = "run this network with torch, by semisparse.load"

COMPUTE: dict[str, Callable] = {}
VIEWS: dict[str, Callable] = {}
VALUES: dict[str, Callable] = {}
# From a computing operator to what makes a `_core.Call` of its arguments, which plans make again and again
# without Python; or None if only numpy can compute with these arguments.
BINDERS: dict[Callable, Callable] = {}


def register(table: dict[str, Callable], names: str) -> Callable:
    def decorate(function: Callable) -> Callable:
        for name in names.split():
            table[name if name.count(".") == 2 else f"{name}.default"] = function
        return function

    return decorate


def native(names: str, otherwise: Callable | None = None) -> Callable:
    """Register computing operators that cpp/core has. The decorated function takes their arguments and
    returns a `_core.Call`, or None to have numpy compute them by `otherwise`."""

    def decorate(bind: Callable) -> Callable:
        def compute(*args, out=None, **kwargs):
            call = bind(*args, out=out, **kwargs)
            return otherwise(*args, out=out, **kwargs) if call is None else call()

        BINDERS[compute] = bind
        return register(COMPUTE, names)(compute)

    return decorate


def is_float32(*operands: Any) -> bool:
    return all(isinstance(value, np.ndarray) and value.dtype == np.float32 for value in operands)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    values = (value, value) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def check_sides(sides: Sequence[int]) -> None:
    """ValueError unless an image can have these (height, width)."""
    if len(sides) != 2 or not all(1 <= side < 2**20 for side in sides):
        raise ValueError(f"an image of {tuple(sides)}: expected two sides of 1 to {2**20 - 1} pixels")


_NATIVE = {name: np.dtype(name) for name in "uint8 int8 int16 int32 int64 float16 float32 float64".split()}
_NATIVE["bool"] = np.dtype(np.bool_)


def dtype_of(symbol: Symbol | None, default: Any = np.float32) -> np.dtype:
    if symbol is None:
        return np.dtype(default)
    if symbol.value not in _NATIVE:
        raise ValueError(f"numpy has no dtype {symbol.value}; {REMEDY}")
    return _NATIVE[symbol.value]


def _category(kind: str) -> int:
    return 2 if kind == "f" else 0 if kind == "b" else 1


def result_type(*operands: Any) -> np.dtype:
    """The type of a result: the highest category (bool, integer, float) decides; inside it arrays with
    dimensions go before those without, and these before Python's numbers."""
    levels: list[list[np.dtype]] = [[], [], []]
    for value in operands:
        if isinstance(value, np.ndarray):
            levels[0 if value.ndim else 1].append(value.dtype)
        else:
            kind = np.bool_ if isinstance(value, bool) else np.int64 if isinstance(value, int) else np.float32
            levels[2].append(np.dtype(kind))
    result = None
    for level in levels:
        if level:
            highest = max(_category(dtype.kind) for dtype in level)
            found = np.result_type(*(dtype for dtype in level if _category(dtype.kind) == highest))
            if result is None or _category(found.kind) > _category(result.kind):
                result = found
    return result


def elementwise(ufunc: np.ufunc, *operands: Any, out: Array | None, dtype: np.dtype | None = None) -> Array:
    dtype = result_type(*operands) if dtype is None else dtype
    if out is None:
        out = np.empty(np.broadcast_shapes(*(np.shape(value) for value in operands)), dtype)
    return ufunc(*operands, out=out, dtype=dtype, casting="unsafe")


def float_type(*operands: Any) -> np.dtype:
    dtype = result_type(*operands)
    return dtype if dtype.kind == "f" else np.dtype(np.float32)


def copied(input: Array, out: Array | None, shape: tuple[int, ...] | None = None) -> Array:
    if out is None:
        return np.array(input, order="C").reshape(input.shape if shape is None else shape)
    np.copyto(out.reshape(input.shape), input)
    return out


def axes(dim: int | Sequence[int] | None) -> tuple[int, ...] | None:
    return None if dim is None or dim == [] else (dim,) if isinstance(dim, int) else tuple(dim)
