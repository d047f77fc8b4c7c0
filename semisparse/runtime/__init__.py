"""numpy in, numpy out, without torch: what a board needs. The same kernels as the PyTorch operators.

`load` reads a converted network (`semisparse.save`) and runs it::

    network = runtime.load("model.safetensors")
    y = network(x)                                   # x: float32 (N, 3, 224, 224)

The operators, by themselves. For output pixel p, output channel o and activation a::

    y[n,o,p] = a( m[p] * (conv(x,W)[n,o,p] + bias[o]) + (1 - m[p]) * fill[o] + residual[n,o,p] )

    weight = runtime.PackedWeight(runtime.pack_weight(w))
    y = runtime.conv2d(x, weight, bias, padding=1, mask=mask, activation="relu")
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

try:
    from semisparse import _core
except ImportError as error:
    from semisparse import _native

    raise ImportError(_native.explain(error)) from error

from semisparse.runtime.network import Network, load  # noqa: E402  after the import above has been explained

PackedWeight = _core.PackedWeight

__all__ = [
    "Network",
    "PackedWeight",
    "compiler",
    "conv2d",
    "cpu_info",
    "get_num_threads",
    "inspect_packed",
    "kernel_name",
    "linear",
    "load",
    "max_pool2d",
    "pack_weight",
    "set_num_threads",
    "unpack_weight",
]

_Pair = int | tuple[int, int]


def conv2d(
    input: np.ndarray,
    weight: np.ndarray | PackedWeight,
    bias: np.ndarray | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int | None = None,
    *,
    mask: np.ndarray | None = None,
    fill: np.ndarray | None = None,
    activation: str = "none",
    residual: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Two-dimensional convolution that skips masked columns (output pixels) and zero weights.

    Args:
        input: float32 (N, C, H, W), any strides.
        weight: float32 (OC, C/groups, KH, KW), arranged anew at every call, or a `PackedWeight`.
        bias: float32 (OC,), or None.
        stride, padding, dilation: one number, or (vertical, horizontal).
        groups: C and OC must be multiples of it. Default: that of the packed weight, or 1.
        mask: bool (OH, OW), True = computed; None = all.
        fill: float32 (OC,), what a skipped pixel holds instead of conv + bias; None = zeros.
        activation: none, relu, relu6, silu, leaky_relu (slope 0.01), hardswish or sigmoid.
        residual: float32 (N, OC, OH, OW), added before the activation.
        out: float32 (N, OC, OH, OW), C-contiguous, where to write the result; not in the memory of `input`.

    Returns:
        float32 (N, OC, OH, OW), C-contiguous.

    Raises:
        ValueError: an argument has the wrong type, dtype, shape or value; says which and what is expected.
    """
    groups = 0 if groups is None else _positive(groups, "groups")
    call = _core.Conv2dCall(
        input, weight, bias, _pair(stride, "stride"), _pair(padding, "padding"), _pair(dilation, "dilation"),
        groups, mask, fill, str(activation), residual, out,
    )  # fmt: skip
    return call()


def linear(
    input: np.ndarray,
    weight: PackedWeight,
    bias: np.ndarray | None = None,
    *,
    activation: str = "none",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Linear layer ``a(input @ W.T + bias)`` that skips zero weights.

    Args:
        input: float32 (..., IN); copied where it is not C-contiguous.
        weight: packed from shape (OUT, IN), or (OUT, IN, 1, 1).
        bias: float32 (OUT,), or None.
        activation: none, relu, relu6, silu, leaky_relu (slope 0.01), hardswish or sigmoid.
        out: float32 (..., OUT), C-contiguous, where to write the result; not in the memory of `input`.

    Returns:
        float32 (..., OUT), C-contiguous.

    Raises:
        ValueError: an argument has the wrong type, dtype, shape or value; says which and what is expected.
    """
    return _core.LinearCall(input, weight, bias, str(activation), out)()


def max_pool2d(
    input: np.ndarray,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    ceil_mode: bool = False,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Two-dimensional max pooling, as `torch.nn.functional.max_pool2d` does it.

    Args:
        input: float32 (N, C, H, W), any strides.
        kernel_size, padding, dilation: one number, or (vertical, horizontal). Padding counts as -infinity,
            and is at most half of the kernel.
        stride: the same; None = kernel_size.
        ceil_mode: a last window that sticks out counts too, unless it would start beyond the image.
        out: float32 (N, C, OH, OW), C-contiguous, where to write the result; not in the memory of `input`.

    Returns:
        float32 (N, C, OH, OW), C-contiguous. A window that holds a NaN gives NaN.

    Raises:
        ValueError: an argument has the wrong type, dtype, shape or value; says which and what is expected.
    """
    kernel = _pair(kernel_size, "kernel_size")
    call = _core.MaxPool2dCall(
        input, kernel, kernel if stride is None else _pair(stride, "stride"), _pair(padding, "padding"),
        _pair(dilation, "dilation"), bool(ceil_mode), out,
    )  # fmt: skip
    return call()


def pack_weight(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """Pack a weight, float32 (OC, C/groups, KH, KW) or (OUT, IN), into portable bytes, uint8 (bytes,).

    Everything but +0.0 is stored. The same bytes as `torch.ops.semisparse.pack_weight` makes.
    """
    return _core.pack_weight(weight, _positive(groups, "groups"))


def unpack_weight(packed: np.ndarray) -> np.ndarray:
    """Exact inverse of `pack_weight`. ValueError if `packed` is truncated, changed or no packed weight."""
    return _core.unpack_weight(packed)


def inspect_packed(packed: np.ndarray) -> dict[str, Any]:
    """What the header of packed bytes says: shape, groups, nonzeros (stored weights), kernels (filter-channel
    pairs with a stored weight), patterns (distinct kernel shapes) and dense (stored without indices)."""
    return _core.inspect_packed(packed)


def cpu_info() -> dict[str, Any]:
    """The processor as the kernels see it: architecture, name, features, l1_bytes, l2_bytes (of one core)."""
    return _core.cpu_info()


def kernel_name() -> str:
    """Kernel family in use. The environment variable SEMISPARSE_ISA chooses another one than the best."""
    return _core.kernel_name()


def compiler() -> str:
    """The compiler that built the kernels, with its version."""
    return _core.compiler


def set_num_threads(threads: int) -> None:
    """Number of threads of all later calls in this process. Results do not depend on it."""
    _core.set_num_threads(_positive(threads, "threads"))


def get_num_threads() -> int:
    """Default: OMP_NUM_THREADS where it is set, otherwise the processors that this process may use."""
    return _core.get_num_threads()


def _positive(value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"`{name}` must be a whole number, got {value!r}") from None
    if not 1 <= number <= 2**30:
        raise ValueError(f"`{name}` must be at least 1 (and at most 2^30), got {value!r}")
    return number


def _pair(value: _Pair, name: str) -> tuple[int, int]:
    try:
        values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
        pair = tuple(operator.index(number) for number in values)
    except TypeError:
        raise ValueError(f"`{name}` must be whole numbers, got {value!r}") from None
    if len(pair) != 2:
        raise ValueError(f"`{name}` must be one number or (vertical, horizontal), got {value!r}")
    if not all(0 <= number <= 2**30 for number in pair):
        raise ValueError(f"`{name}` must not be negative (and at most 2^30), got {value!r}")
    return pair
