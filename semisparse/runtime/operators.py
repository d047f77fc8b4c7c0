"""The operators of saved graphs for numpy: what convolutional classifiers and detectors are made of.

Names, arguments and meaning are those of `semisparse.graph`, that is, of PyTorch's ATen. There are three
kinds:

- *computing* operators take a keyword `out`: an array to write the result to, or None for a new one;
- *views* return an array that shares memory with their first argument wherever numpy can (a reshape of an
array
  that is not contiguous cannot: the caller copies then);
- *values* are integers and constants, which depend on the shapes of tensors at most.

All arrays that computing operators return are C-contiguous.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from semisparse import _core
from semisparse.graph import Symbol

__all__ = ["BINDERS", "COMPUTE", "VALUES", "VIEWS", "concatenation_axis", "convolution_arguments"]

Array = np.ndarray
_REMEDY = "run this network with torch, by semisparse.load"

COMPUTE: dict[str, Callable] = {}
VIEWS: dict[str, Callable] = {}
VALUES: dict[str, Callable] = {}


def _register(table: dict[str, Callable], names: str) -> Callable:
    def decorate(function: Callable) -> Callable:
        for name in names.split():
            table[name if name.count(".") == 2 else f"{name}.default"] = function
        return function

    return decorate


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    values = (value, value) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


# --- types, by PyTorch's rules of promotion, which differ from numpy's where integers meet floats

_NATIVE = {name: np.dtype(name) for name in "uint8 int8 int16 int32 int64 float16 float32 float64".split()}
_NATIVE["bool"] = np.dtype(np.bool_)


def _dtype(symbol: Symbol | None, default: Any = np.float32) -> np.dtype:
    if symbol is None:
        return np.dtype(default)
    if symbol.value not in _NATIVE:
        raise ValueError(f"numpy has no dtype {symbol.value}; {_REMEDY}")
    return _NATIVE[symbol.value]


def _category(kind: str) -> int:
    return 2 if kind == "f" else 0 if kind == "b" else 1


def _promote(*operands: Any) -> np.dtype:
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


def _apply(ufunc: np.ufunc, *operands: Any, out: Array | None, dtype: np.dtype | None = None) -> Array:
    dtype = _promote(*operands) if dtype is None else dtype
    if out is None:
        out = np.empty(np.broadcast_shapes(*(np.shape(value) for value in operands)), dtype)
    return ufunc(*operands, out=out, dtype=dtype, casting="unsafe")


def _float(*operands: Any) -> np.dtype:
    dtype = _promote(*operands)
    return dtype if dtype.kind == "f" else np.dtype(np.float32)


# --- convolution, linear, pooling


def convolution_arguments(op: str, args: Sequence, kwargs: dict) -> dict[str, Any]:
    """The arguments of any of the graph's two-dimensional convolutions by name."""
    names = ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
    if op == "semisparse.conv2d.packed":
        names.insert(2, "weight_shape")
    given = dict(zip(names, args, strict=False)) | kwargs
    defaults = {
        "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1,
        "mask": None, "fill": None, "activation": "none", "residual": None,
    }  # fmt: skip
    return defaults | given


def _named_padding(padding: str, kernel: tuple[int, int], dilation: int | Sequence[int]) -> list[int]:
    if padding == "valid":
        return [0, 0]
    total = [d * (k - 1) for d, k in zip(_pair(dilation), kernel, strict=True)]
    if padding != "same" or any(size % 2 for size in total):
        raise ValueError(
            f"a convolution with padding={padding!r} and a kernel of {kernel} pads its two sides "
            f"differently, which this runtime does not do; {_REMEDY}"
        )
    return [size // 2 for size in total]


def _bind_conv2d(
    input, weight, bias, stride, padding, dilation, groups, mask, fill, activation, residual, out
):
    if isinstance(padding, str):
        padding = _named_padding(padding, weight.shape[2:], dilation)
    call = _core.Conv2dCall(
        input, weight, bias, _pair(stride), _pair(padding), _pair(dilation), groups, mask, fill, activation,
        residual, out,
    )  # fmt: skip
    return call, call.reads_in_place(input, residual)


@_register(COMPUTE, "semisparse.conv2d.packed semisparse.conv2d.default aten.conv2d aten.conv2d.padding")
def conv2d(*, out=None, **arguments):
    return _bind_conv2d(**arguments, out=out)[0]()


def _bind_packed_linear(input, weight, weight_shape, bias=None, *, activation="none", out):
    call = _core.LinearCall(input, weight, bias, activation, out)
    return call, call.reads_in_place(input)


@_register(COMPUTE, "semisparse.linear")
def packed_linear(*args, out=None, **kwargs):
    return _bind_packed_linear(*args, out=out, **kwargs)[0]()


@_register(COMPUTE, "aten.linear")
def linear(input, weight, bias=None, *, out=None):
    y = _matmul(input, weight.T, out)
    return y if bias is None else np.add(y, bias, out=y)


def _matmul(a: Array, b: Array, out: Array | None) -> Array:
    if out is None and a.ndim > 1 and b.ndim > 1:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        out = np.empty(shape, _promote(a, b))
    return np.asarray(np.matmul(a, b, out=out))


@_register(COMPUTE, "aten.matmul aten.mm aten.bmm")
def matmul(a, b, *, out=None):
    return _matmul(a, b, out)


@_register(COMPUTE, "aten.addmm")
def addmm(input, a, b, *, beta=1, alpha=1, out=None):
    y = _matmul(a, b, out)
    if alpha != 1:
        np.multiply(y, alpha, out=y)
    return np.add(y, input if beta == 1 else input * np.float32(beta), out=y)


def _bind_max_pool2d(input, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False, *, out):
    call = _core.MaxPool2dCall(
        input, _pair(kernel_size), _pair(stride or kernel_size), _pair(padding), _pair(dilation), ceil_mode,
        out,
    )  # fmt: skip
    return call, call.reads_in_place(input)


@_register(COMPUTE, "semisparse.max_pool2d aten.max_pool2d")
def max_pool2d(*args, out=None, **kwargs):
    return _bind_max_pool2d(*args, out=out, **kwargs)[0]()


@_register(COMPUTE, "aten.avg_pool2d")
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
    kernel, steps, pad = _pair(kernel_size), _pair(stride or kernel_size), _pair(padding)
    if ceil_mode:
        raise ValueError(f"avg_pool2d with ceil_mode; {_REMEDY}")
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


@_register(COMPUTE, "aten.adaptive_avg_pool2d")
def adaptive_avg_pool2d(input, output_size, *, out=None):
    rows, columns = _pair(output_size)
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


# --- resizing


def _output_size(input: Array, size: Sequence[int] | None, scales: Sequence[float] | None) -> list[int]:
    if size is not None:
        return list(size)
    return [math.floor(length * scale) for length, scale in zip(input.shape[-2:], scales, strict=True)]


def _upsample_nearest(
    input: Array, size: list[int], scales: Sequence[float | None], out: Array | None
) -> Array:
    height, width = input.shape[-2:]
    if out is None:
        out = np.empty((*input.shape[:-2], *size), input.dtype)
    if size[0] % height == 0 and size[1] % width == 0:  # whole copies of pixels, the usual case
        factors = size[0] // height, size[1] // width
        blocks = out.reshape(*input.shape[:-2], height, factors[0], width, factors[1])
        for j in range(factors[1]):
            blocks[..., 0, :, j] = input
        for i in range(1, factors[0]):
            blocks[..., i, :, :] = blocks[..., 0, :, :]
        return out
    rows, columns = (
        np.minimum(
            np.floor(np.arange(n, dtype=np.float32) * np.float32(_step(length, n, s))), length - 1
        ).astype(int)
        for length, n, s in zip((height, width), size, scales, strict=True)
    )
    out[...] = input[..., rows[:, None], columns]
    return out


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


@_register(COMPUTE, "aten.upsample_nearest2d.vec")
def upsample_nearest2d_vec(input, output_size, scale_factors, *, out=None):
    size = _output_size(input, output_size, scale_factors)
    return _upsample_nearest(input, size, scale_factors or (None, None), out)


@_register(COMPUTE, "aten.upsample_nearest2d")
def upsample_nearest2d(input, output_size, scales_h=None, scales_w=None, *, out=None):
    return _upsample_nearest(input, list(output_size), (scales_h, scales_w), out)


@_register(COMPUTE, "aten.upsample_bilinear2d.vec")
def upsample_bilinear2d_vec(input, output_size, align_corners, scale_factors, *, out=None):
    size = _output_size(input, output_size, scale_factors)
    return _upsample_bilinear(input, size, align_corners, scale_factors or (None, None), out)


@_register(COMPUTE, "aten.upsample_bilinear2d")
def upsample_bilinear2d(input, output_size, align_corners, scales_h=None, scales_w=None, *, out=None):
    return _upsample_bilinear(input, list(output_size), align_corners, (scales_h, scales_w), out)


@_register(COMPUTE, "aten.pixel_shuffle")
def pixel_shuffle(input, upscale_factor, *, out=None):
    *outer, channels, height, width = input.shape
    r, n = upscale_factor, len(outer)
    blocks = input.reshape(*outer, channels // (r * r), r, r, height, width)
    moved = blocks.transpose(*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return _copy(moved, out, (*outer, channels // (r * r), height * r, width * r))


# --- activations and arithmetic


@_register(COMPUTE, "aten.relu")
def relu(input, *, out=None):
    return _apply(np.maximum, input, 0, out=out)


@_register(COMPUTE, "aten.hardtanh")
def hardtanh(input, min_val=-1, max_val=1, *, out=None):
    return clamp(input, min_val, max_val, out=out)


@_register(COMPUTE, "aten.relu6")
def relu6(input, *, out=None):
    return clamp(input, 0, 6, out=out)


@_register(COMPUTE, "aten.clamp")
def clamp(input, min=None, max=None, *, out=None):
    if min is None and max is None:
        return _copy(input, out)
    y = input if min is None else _apply(np.maximum, input, min, out=out)
    return y if max is None else _apply(np.minimum, y, max, out=y if y is not input else out)


@_register(COMPUTE, "aten.clamp_min")
def clamp_min(input, min, *, out=None):
    return clamp(input, min, out=out)


@_register(COMPUTE, "aten.clamp_max")
def clamp_max(input, max, *, out=None):
    return clamp(input, None, max, out=out)


@_register(COMPUTE, "aten.sigmoid")
def sigmoid(input, *, out=None):
    y = _apply(np.negative, input, out=out, dtype=_float(input))
    with np.errstate(over="ignore"):  # exp(-x) = inf is right: 1 / inf = 0
        np.exp(y, out=y)
    y += y.dtype.type(1)
    return np.reciprocal(y, out=y)


@_register(COMPUTE, "aten.silu")
def silu(input, *, out=None):
    return np.multiply(y := sigmoid(input, out=out), input, out=y)


@_register(COMPUTE, "aten.mish")
def mish(input, *, out=None):
    y = np.tanh(np.logaddexp(input, input.dtype.type(0)))
    return _apply(np.multiply, input, y, out=out)


@_register(COMPUTE, "aten.hardsigmoid")
def hardsigmoid(input, *, out=None):
    y = _apply(np.add, input, 3.0, out=out)
    y = clamp(y, 0, 6, out=y)
    return _apply(np.multiply, y, 1 / 6, out=y)


@_register(COMPUTE, "aten.hardswish")
def hardswish(input, *, out=None):
    return np.multiply(y := hardsigmoid(input, out=out), input, out=y)


@_register(COMPUTE, "aten.leaky_relu")
def leaky_relu(input, negative_slope=0.01, *, out=None):
    y = _apply(np.multiply, input, float(negative_slope), out=out)
    np.copyto(y, input, where=input > 0)
    return y


@_register(COMPUTE, "aten.elu")
def elu(input, alpha=1, scale=1, input_scale=1, *, out=None):
    negative = np.expm1(np.minimum(input, 0) * input.dtype.type(input_scale)) * input.dtype.type(alpha)
    return _apply(np.multiply, np.where(input > 0, input, negative), float(scale), out=out)


@_register(COMPUTE, "aten.add.Tensor aten.add.Scalar")
def add(input, other, alpha=1, *, out=None):
    return _apply(np.add, input, other if alpha == 1 else other * alpha, out=out)


@_register(COMPUTE, "aten.sub.Tensor aten.sub.Scalar")
def sub(input, other, alpha=1, *, out=None):
    return _apply(np.subtract, input, other if alpha == 1 else other * alpha, out=out)


@_register(COMPUTE, "aten.rsub.Scalar")
def rsub(input, other, alpha=1, *, out=None):
    return _apply(np.subtract, other, input if alpha == 1 else input * alpha, out=out)


@_register(COMPUTE, "aten.mul.Tensor aten.mul.Scalar")
def mul(input, other, *, out=None):
    return _apply(np.multiply, input, other, out=out)


@_register(COMPUTE, "aten.div.Tensor aten.div.Scalar")
def div(input, other, *, out=None):
    return _apply(np.divide, input, other, out=out, dtype=_float(input, other))


@_register(COMPUTE, "aten.pow.Tensor_Scalar")
def power(input, exponent, *, out=None):
    if exponent == 2:
        return _apply(np.multiply, input, input, out=out)
    return _apply(np.power, input, exponent, out=out)


@_register(COMPUTE, "aten.minimum")
def minimum(input, other, *, out=None):
    return _apply(np.minimum, input, other, out=out)


@_register(COMPUTE, "aten.maximum")
def maximum(input, other, *, out=None):
    return _apply(np.maximum, input, other, out=out)


def _unary(name: str, function: np.ufunc, floats: bool = True) -> None:
    def apply(input, *, out=None):
        return _apply(function, input, out=out, dtype=_float(input) if floats else None)

    COMPUTE[f"aten.{name}.default"] = apply


for _name in ("exp", "log", "sqrt", "tanh", "sin", "cos", "reciprocal"):
    _unary(_name, getattr(np, _name))
for _name, _ufunc in {"neg": np.negative, "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
                      "square": np.square, "sign": np.sign}.items():  # fmt: skip
    _unary(_name, _ufunc, floats=False)


@_register(COMPUTE, "aten.rsqrt")
def rsqrt(input, *, out=None):
    y = _apply(np.sqrt, input, out=out, dtype=_float(input))
    return np.reciprocal(y, out=y)


@_register(COMPUTE, "aten.batch_norm")
def batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn_enabled=False, *, out=None):
    if training or mean is None or var is None:
        raise ValueError("batch_norm with statistics of the batch; convert the model in eval mode")
    scale = 1 / np.sqrt(var + np.float32(eps))
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    wide = (slice(None), *([None] * (input.ndim - 2)))
    y = _apply(np.multiply, input, scale[wide], out=out)
    return np.add(y, shift[wide], out=y)


# --- softmax and reductions


@_register(COMPUTE, "aten.softmax.int aten._softmax")
def softmax(input, dim, dtype=None, *, out=None):
    y = _apply(np.subtract, input, input.max(axis=dim, keepdims=True), out=out, dtype=_float(input))
    np.exp(y, out=y)
    return np.divide(y, y.sum(axis=dim, keepdims=True), out=y)


@_register(COMPUTE, "aten.log_softmax.int")
def log_softmax(input, dim, dtype=None, *, out=None):
    y = _apply(np.subtract, input, input.max(axis=dim, keepdims=True), out=out, dtype=_float(input))
    return np.subtract(y, np.log(np.exp(y).sum(axis=dim, keepdims=True)), out=y)


def _axes(dim: int | Sequence[int] | None) -> tuple[int, ...] | None:
    return None if dim is None or dim == [] else (dim,) if isinstance(dim, int) else tuple(dim)


def _reduction(names: str, function: Callable, floats: bool) -> None:
    @_register(COMPUTE, names)
    def reduce(input, dim=None, keepdim=False, dtype=None, *, out=None):
        wanted = None if dtype is None else _dtype(dtype)
        if wanted is None and floats:
            wanted = _float(input)
        options = {} if wanted is None else {"dtype": wanted}
        return np.asarray(function(input, axis=_axes(dim), keepdims=keepdim, out=out, **options))


_reduction("aten.mean aten.mean.dim", np.mean, True)
_reduction("aten.sum aten.sum.dim_IntList", np.sum, False)
_reduction("aten.amax", np.amax, False)
_reduction("aten.amin", np.amin, False)


# --- putting together


def _copy(input: Array, out: Array | None, shape: tuple[int, ...] | None = None) -> Array:
    if out is None:
        return np.array(input, order="C").reshape(input.shape if shape is None else shape)
    np.copyto(out.reshape(input.shape), input)
    return out


def concatenation_axis(op: str, args: Sequence, kwargs: dict) -> int | None:
    """The axis along which `op` joins the tensors that are its first argument; None for other operators."""
    if op not in ("aten.cat.default", "aten.concat.default"):
        return None
    return kwargs.get("dim", args[1] if len(args) > 1 else 0)


@_register(COMPUTE, "aten.cat aten.concat")
def concatenate(tensors, dim=0, *, out=None):
    if out is None:
        shape = list(tensors[0].shape)
        shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
        out = np.empty(shape, _promote(*tensors))
    return np.concatenate(tensors, axis=dim, out=out)


@_register(COMPUTE, "aten.stack")
def stack(tensors, dim=0, *, out=None):
    if out is None:
        shape = list(tensors[0].shape)
        shape.insert(dim if dim >= 0 else dim + len(shape) + 1, len(tensors))
        out = np.empty(shape, _promote(*tensors))
    return np.stack(tensors, axis=dim, out=out)


@_register(COMPUTE, "aten.constant_pad_nd aten.pad")
def pad(input, pad, mode="constant", value=0, *, out=None):
    if isinstance(mode, (int, float)):  # constant_pad_nd has the value in this place
        mode, value = "constant", mode
    kinds = {"constant": {"constant_values": 0 if value is None else value}, "reflect": {}, "replicate": {}}
    if mode not in kinds or any(size < 0 for size in pad):
        raise ValueError(f"pad with mode {mode!r} and sizes {pad}; {_REMEDY}")
    sizes = [(0, 0)] * (input.ndim - len(pad) // 2) + [
        (pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)
    ]
    return _copy(np.pad(input, sizes, mode={"replicate": "edge"}.get(mode, mode), **kinds[mode]), out)


@_register(COMPUTE, "aten.repeat")
def repeat(input, repeats, *, out=None):
    return _copy(np.tile(input, repeats), out)


@_register(COMPUTE, "aten.index_select")
def index_select(input, dim, index, *, out=None):
    return np.take(input, index, axis=dim, out=out, mode="raise" if out is None else "clip")


@_register(COMPUTE, "aten.clone aten.contiguous")
def clone(input, *, memory_format=None, out=None):
    return _copy(input, out)


@_register(COMPUTE, "aten.to.dtype aten._to_copy aten.to.dtype_layout")
def to(input, dtype=None, non_blocking=False, copy=False, *, out=None, **_):
    wanted = _dtype(dtype, input.dtype)
    if out is None:
        return np.array(input, dtype=wanted, order="C")
    np.copyto(out, input, casting="unsafe")
    return out


# --- views


@_register(VIEWS, "aten.view aten.reshape")
def view(input, size):
    return input.reshape(tuple(size))


@_register(VIEWS, "aten.flatten.using_ints")
def flatten(input, start_dim=0, end_dim=-1):
    if input.ndim == 0:
        return input.reshape(1)
    first, last = (dim % input.ndim for dim in (start_dim, end_dim))
    joined = math.prod(input.shape[first : last + 1])
    return input.reshape(*input.shape[:first], joined, *input.shape[last + 1 :])


@_register(VIEWS, "aten.unflatten.int")
def unflatten(input, dim, sizes):
    dim %= input.ndim
    known = -math.prod(sizes)
    sizes = [input.shape[dim] // known if size == -1 else size for size in sizes]
    return input.reshape(*input.shape[:dim], *sizes, *input.shape[dim + 1 :])


@_register(VIEWS, "aten.squeeze aten.squeeze.dim aten.squeeze.dims")
def squeeze(input, dim=None):
    axes = range(input.ndim) if dim is None else [d % input.ndim for d in _axes(dim)]
    return np.squeeze(input, tuple(axis for axis in axes if input.shape[axis] == 1))


@_register(VIEWS, "aten.unsqueeze")
def unsqueeze(input, dim):
    return np.expand_dims(input, dim)


@_register(VIEWS, "aten.permute")
def permute(input, dims):
    return input.transpose(dims)


@_register(VIEWS, "aten.transpose.int")
def transpose(input, dim0, dim1):
    return input.swapaxes(dim0, dim1)


@_register(VIEWS, "aten.t")
def matrix_transpose(input):
    return input.T


@_register(VIEWS, "aten.expand")
def expand(input, size, implicit=False):
    missing = len(size) - input.ndim
    return np.broadcast_to(input, [input.shape[i - missing] if n == -1 else n for i, n in enumerate(size)])


@_register(VIEWS, "aten.slice.Tensor")
def slice_tensor(input, dim=0, start=None, end=None, step=1):
    return input[(slice(None),) * (dim % input.ndim) + (slice(start, end, step),)]


@_register(VIEWS, "aten.narrow")
def narrow(input, dim, start, length):
    start = start % input.shape[dim] if start < 0 else start
    return slice_tensor(input, dim, start, start + length)


@_register(VIEWS, "aten.select.int")
def select(input, dim, index):
    return input[(slice(None),) * (dim % input.ndim) + (index,)]


@_register(VIEWS, "aten.chunk")
def chunk(input, chunks, dim=0):
    return split(input, max(1, -(-input.shape[dim] // chunks)), dim)


@_register(VIEWS, "aten.split.Tensor")
def split(input, split_size, dim=0):
    starts = range(0, max(input.shape[dim], 1), max(split_size, 1))
    return [slice_tensor(input, dim, start, start + split_size) for start in starts]


@_register(VIEWS, "aten.split_with_sizes aten.split.sizes")
def split_with_sizes(input, split_sizes, dim=0):
    ends = np.cumsum(split_sizes).tolist()
    return [slice_tensor(input, dim, end - n, end) for n, end in zip(split_sizes, ends, strict=True)]


@_register(VIEWS, "aten.unbind.int")
def unbind(input, dim=0):
    return [select(input, dim, index) for index in range(input.shape[dim])]


@_register(VIEWS, "aten.flip")
def flip(input, dims):
    return np.flip(input, tuple(dims))


# --- values


@_register(VALUES, "aten.sym_size.int")
def sym_size(input, dim):
    return int(input.shape[dim])


@_register(VALUES, "aten.sym_numel")
def sym_numel(input):
    return int(input.size)


def _number_dtype(value: Any, dtype: Symbol | None) -> np.dtype:
    return _dtype(dtype, _promote(value))


@_register(VALUES, "aten.full aten.scalar_tensor")
def full(size, fill_value=None, *, dtype=None, **_):
    if fill_value is None:  # scalar_tensor: its one argument is the value
        return np.array(size, _dtype(dtype))
    return np.full(size, fill_value, _number_dtype(fill_value, dtype))


@_register(VALUES, "aten.zeros")
def zeros(size, *, dtype=None, **_):
    return np.zeros(size, _dtype(dtype))


@_register(VALUES, "aten.ones")
def ones(size, *, dtype=None, **_):
    return np.ones(size, _dtype(dtype))


@_register(VALUES, "aten.arange aten.arange.start aten.arange.start_step")
def arange(*bounds, dtype=None, **_):
    return np.arange(*bounds).astype(_number_dtype(sum(bounds), dtype))


@_register(VALUES, "aten.full_like aten.new_full")
def full_like(input, *rest, dtype=None, **_):
    *size, value = rest
    return np.full(size[0] if size else input.shape, value, _dtype(dtype, input.dtype))


@_register(VALUES, "aten.zeros_like aten.new_zeros")
def zeros_like(input, size=None, *, dtype=None, **_):
    return np.zeros(input.shape if size is None else size, _dtype(dtype, input.dtype))


@_register(VALUES, "aten.ones_like aten.new_ones")
def ones_like(input, size=None, *, dtype=None, **_):
    return np.ones(input.shape if size is None else size, _dtype(dtype, input.dtype))


# From a computing operator to the function that checks its arguments once and returns a call without
# arguments, and whether that reads its input where it lies.
BINDERS: dict[Callable, Callable] = {
    conv2d: _bind_conv2d,
    max_pool2d: _bind_max_pool2d,
    packed_linear: _bind_packed_linear,
}


for _name in ("add", "sub", "mul", "floordiv", "mod", "neg"):
    VALUES[f"operator.{_name}"] = getattr(operator, _name)
VIEWS["operator.getitem"] = operator.getitem
