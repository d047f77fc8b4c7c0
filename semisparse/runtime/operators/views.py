"""Operators whose result lies in the memory of their argument, wherever numpy can."""

from __future__ import annotations

import math
import operator

import numpy as np

from semisparse.runtime.operators.registry import VIEWS, axes, register


@register(VIEWS, "aten.view aten.reshape")
def view(input, size):
    return input.reshape(tuple(size))


@register(VIEWS, "aten.flatten.using_ints")
def flatten(input, start_dim=0, end_dim=-1):
    if input.ndim == 0:
        return input.reshape(1)
    first, last = (dim % input.ndim for dim in (start_dim, end_dim))
    joined = math.prod(input.shape[first : last + 1])
    return input.reshape(*input.shape[:first], joined, *input.shape[last + 1 :])


@register(VIEWS, "aten.unflatten.int")
def unflatten(input, dim, sizes):
    dim %= input.ndim
    known = -math.prod(sizes)
    sizes = [input.shape[dim] // known if size == -1 else size for size in sizes]
    return input.reshape(*input.shape[:dim], *sizes, *input.shape[dim + 1 :])


@register(VIEWS, "aten.squeeze aten.squeeze.dim aten.squeeze.dims")
def squeeze(input, dim=None):
    chosen = range(input.ndim) if dim is None else [d % input.ndim for d in axes(dim)]
    return np.squeeze(input, tuple(axis for axis in chosen if input.shape[axis] == 1))


@register(VIEWS, "aten.unsqueeze")
def unsqueeze(input, dim):
    return np.expand_dims(input, dim)


@register(VIEWS, "aten.permute")
def permute(input, dims):
    return input.transpose(dims)


@register(VIEWS, "aten.transpose.int")
def transpose(input, dim0, dim1):
    return input.swapaxes(dim0, dim1)


@register(VIEWS, "aten.t")
def matrix_transpose(input):
    return input.T


@register(VIEWS, "aten.expand")
def expand(input, size, implicit=False):
    missing = len(size) - input.ndim
    return np.broadcast_to(input, [input.shape[i - missing] if n == -1 else n for i, n in enumerate(size)])


@register(VIEWS, "aten.slice.Tensor")
def slice_tensor(input, dim=0, start=None, end=None, step=1):
    return input[(slice(None),) * (dim % input.ndim) + (slice(start, end, step),)]


@register(VIEWS, "aten.narrow")
def narrow(input, dim, start, length):
    start = start % input.shape[dim] if start < 0 else start
    return slice_tensor(input, dim, start, start + length)


@register(VIEWS, "aten.select.int")
def select(input, dim, index):
    return input[(slice(None),) * (dim % input.ndim) + (index,)]


@register(VIEWS, "aten.chunk")
def chunk(input, chunks, dim=0):
    return split(input, max(1, -(-input.shape[dim] // chunks)), dim)


@register(VIEWS, "aten.split.Tensor")
def split(input, split_size, dim=0):
    starts = range(0, max(input.shape[dim], 1), max(split_size, 1))
    return [slice_tensor(input, dim, start, start + split_size) for start in starts]


@register(VIEWS, "aten.split_with_sizes aten.split.sizes")
def split_with_sizes(input, split_sizes, dim=0):
    ends = np.cumsum(split_sizes).tolist()
    return [slice_tensor(input, dim, end - n, end) for n, end in zip(split_sizes, ends, strict=True)]


@register(VIEWS, "aten.unbind.int")
def unbind(input, dim=0):
    return [select(input, dim, index) for index in range(input.shape[dim])]


@register(VIEWS, "aten.flip")
def flip(input, dims):
    return np.flip(input, tuple(dims))


VIEWS["operator.getitem"] = operator.getitem
