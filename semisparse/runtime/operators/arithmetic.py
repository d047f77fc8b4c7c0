"""Activations, arithmetic and normalisation, element by element."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semisparse import _core
from semisparse.runtime.operators.registry import (
    COMPUTE,
    copied,
    elementwise,
    float_type,
    is_float32,
    native,
    register,
)


def activated(name: str, activation: str) -> Callable:
    """Register an activation that cpp/core has for float32; the decorated function computes other types."""

    def decorate(otherwise: Callable) -> Callable:
        @native(name, otherwise)
        def bind(input, *, out=None):
            return _core.ActivateCall(input, activation, out) if is_float32(input) else None

        return otherwise

    return decorate


def combined(names: str, operation: str) -> Callable:
    """The same for the arithmetic of two arrays, or of an array and a number."""

    def decorate(otherwise: Callable) -> Callable:
        @native(names, otherwise)
        def bind(input, other, alpha=1, *, out=None):
            if isinstance(other, (int, float)):
                other = np.array(other * alpha, np.float32)
            elif alpha != 1:
                return None
            if not is_float32(input, other):
                return None
            return _core.CombineCall(input, operation, other, out)

        return otherwise

    return decorate


@activated("aten.relu", "relu")
def relu(input, *, out=None):
    return elementwise(np.maximum, input, 0, out=out)


@native("aten.hardtanh", lambda input, min_val=-1, max_val=1, *, out: clamp(input, min_val, max_val, out=out))
def hardtanh(input, min_val=-1, max_val=1, *, out=None):
    relu6 = is_float32(input) and (min_val, max_val) == (0, 6)
    return _core.ActivateCall(input, "relu6", out) if relu6 else None


@activated("aten.relu6", "relu6")
def relu6(input, *, out=None):
    return clamp(input, 0, 6, out=out)


@register(COMPUTE, "aten.clamp")
def clamp(input, min=None, max=None, *, out=None):
    if min is None and max is None:
        return copied(input, out)
    y = input if min is None else elementwise(np.maximum, input, min, out=out)
    return y if max is None else elementwise(np.minimum, y, max, out=y if y is not input else out)


@register(COMPUTE, "aten.clamp_min")
def clamp_min(input, min, *, out=None):
    return clamp(input, min, out=out)


@register(COMPUTE, "aten.clamp_max")
def clamp_max(input, max, *, out=None):
    return clamp(input, None, max, out=out)


@activated("aten.sigmoid", "sigmoid")
def sigmoid(input, *, out=None):
    y = elementwise(np.negative, input, out=out, dtype=float_type(input))
    with np.errstate(over="ignore"):  # exp(-x) = inf is right: 1 / inf = 0
        np.exp(y, out=y)
    y += y.dtype.type(1)
    return np.reciprocal(y, out=y)


@activated("aten.silu", "silu")
def silu(input, *, out=None):
    return np.multiply(y := sigmoid(input, out=out), input, out=y)


@register(COMPUTE, "aten.mish")
def mish(input, *, out=None):
    y = np.tanh(np.logaddexp(input, input.dtype.type(0)))
    return elementwise(np.multiply, input, y, out=out)


@register(COMPUTE, "aten.hardsigmoid")
def hardsigmoid(input, *, out=None):
    y = elementwise(np.add, input, 3.0, out=out)
    y = clamp(y, 0, 6, out=y)
    return elementwise(np.multiply, y, 1 / 6, out=y)


@activated("aten.hardswish", "hardswish")
def hardswish(input, *, out=None):
    return np.multiply(y := hardsigmoid(input, out=out), input, out=y)


@register(COMPUTE, "aten.leaky_relu")
def leaky_relu(input, negative_slope=0.01, *, out=None):
    y = elementwise(np.multiply, input, float(negative_slope), out=out)
    np.copyto(y, input, where=input > 0)
    return y


@register(COMPUTE, "aten.elu")
def elu(input, alpha=1, scale=1, input_scale=1, *, out=None):
    negative = np.expm1(np.minimum(input, 0) * input.dtype.type(input_scale)) * input.dtype.type(alpha)
    return elementwise(np.multiply, np.where(input > 0, input, negative), float(scale), out=out)


@combined("aten.add.Tensor aten.add.Scalar", "add")
def add(input, other, alpha=1, *, out=None):
    return elementwise(np.add, input, other if alpha == 1 else other * alpha, out=out)


@combined("aten.sub.Tensor aten.sub.Scalar", "subtract")
def sub(input, other, alpha=1, *, out=None):
    return elementwise(np.subtract, input, other if alpha == 1 else other * alpha, out=out)


@register(COMPUTE, "aten.rsub.Scalar")
def rsub(input, other, alpha=1, *, out=None):
    return elementwise(np.subtract, other, input if alpha == 1 else input * alpha, out=out)


@combined("aten.mul.Tensor aten.mul.Scalar", "multiply")
def mul(input, other, *, out=None):
    return elementwise(np.multiply, input, other, out=out)


@combined("aten.div.Tensor aten.div.Scalar", "divide")
def div(input, other, *, out=None):
    return elementwise(np.divide, input, other, out=out, dtype=float_type(input, other))


@register(COMPUTE, "aten.pow.Tensor_Scalar")
def power(input, exponent, *, out=None):
    if exponent == 2:
        return elementwise(np.multiply, input, input, out=out)
    return elementwise(np.power, input, exponent, out=out)


@register(COMPUTE, "aten.minimum")
def minimum(input, other, *, out=None):
    return elementwise(np.minimum, input, other, out=out)


@register(COMPUTE, "aten.maximum")
def maximum(input, other, *, out=None):
    return elementwise(np.maximum, input, other, out=out)


def _unary(name: str, function: np.ufunc, floats: bool = True) -> None:
    def apply(input, *, out=None):
        return elementwise(function, input, out=out, dtype=float_type(input) if floats else None)

    COMPUTE[f"aten.{name}.default"] = apply


for _name in ("exp", "log", "sqrt", "tanh", "sin", "cos", "reciprocal"):
    _unary(_name, getattr(np, _name))
for _name, _ufunc in {"neg": np.negative, "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
                      "square": np.square, "sign": np.sign}.items():  # fmt: skip
    _unary(_name, _ufunc, floats=False)


@register(COMPUTE, "aten.rsqrt")
def rsqrt(input, *, out=None):
    y = elementwise(np.sqrt, input, out=out, dtype=float_type(input))
    return np.reciprocal(y, out=y)


@register(COMPUTE, "aten.batch_norm")
def batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn_enabled=False, *, out=None):
    if training or mean is None or var is None:
        raise ValueError("batch_norm with statistics of the batch; convert the model in eval mode")
    scale = 1 / np.sqrt(var + np.float32(eps))
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    wide = (slice(None), *([None] * (input.ndim - 2)))
    y = elementwise(np.multiply, input, scale[wide], out=out)
    return np.add(y, shift[wide], out=y)
