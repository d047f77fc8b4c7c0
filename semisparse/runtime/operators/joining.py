"""Concatenation, padding, copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semisparse import _core
from semisparse.runtime.operators.registry import (
    COMPUTE,
    REMEDY,
    copied,
    dtype_of,
    is_float32,
    native,
    register,
    result_type,
)


def concatenation_axis(op: str, args: Sequence, kwargs: dict) -> int | None:
    """The axis along which `op` joins the tensors that are its first argument; None for other operators."""
    if op not in ("aten.cat.default", "aten.concat.default"):
        return None
    return kwargs.get("dim", args[1] if len(args) > 1 else 0)


def _concatenate(tensors, dim=0, *, out):
    if out is None:
        shape = list(tensors[0].shape)
        shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
        out = np.empty(shape, result_type(*tensors))
    return np.concatenate(tensors, axis=dim, out=out)


@native("aten.cat aten.concat", _concatenate)
def concatenate(tensors, dim=0, *, out=None):
    return _core.ConcatenateCall(tensors, dim, out) if is_float32(*tensors) else None


@register(COMPUTE, "aten.stack")
def stack(tensors, dim=0, *, out=None):
    if out is None:
        shape = list(tensors[0].shape)
        shape.insert(dim if dim >= 0 else dim + len(shape) + 1, len(tensors))
        out = np.empty(shape, result_type(*tensors))
    return np.stack(tensors, axis=dim, out=out)


@register(COMPUTE, "aten.constant_pad_nd aten.pad")
def pad(input, pad, mode="constant", value=0, *, out=None):
    if isinstance(mode, (int, float)):  # constant_pad_nd has the value in this place
        mode, value = "constant", mode
    kinds = {"constant": {"constant_values": 0 if value is None else value}, "reflect": {}, "replicate": {}}
    if mode not in kinds or any(size < 0 for size in pad):
        raise ValueError(f"pad with mode {mode!r} and sizes {pad}; {REMEDY}")
    sizes = [(0, 0)] * (input.ndim - len(pad) // 2) + [
        (pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)
    ]
    return copied(np.pad(input, sizes, mode={"replicate": "edge"}.get(mode, mode), **kinds[mode]), out)


@register(COMPUTE, "aten.repeat")
def repeat(input, repeats, *, out=None):
    return copied(np.tile(input, repeats), out)


@register(COMPUTE, "aten.index_select")
def index_select(input, dim, index, *, out=None):
    return np.take(input, index, axis=dim, out=out, mode="raise" if out is None else "clip")


def _clone(input, *, memory_format=None, out):
    return copied(input, out)


@native("aten.clone aten.contiguous", _clone)
def clone(input, *, memory_format=None, out=None):
    return _core.CopyCall(input, out) if is_float32(input) else None


@register(COMPUTE, "aten.to.dtype aten._to_copy aten.to.dtype_layout")
def to(input, dtype=None, non_blocking=False, copy=False, *, out=None, **_):
    wanted = dtype_of(dtype, input.dtype)
    if out is None:
        return np.array(input, dtype=wanted, order="C")
    np.copyto(out, input, casting="unsafe")
    return out
