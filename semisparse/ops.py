"""The operators as documented functions. Each calls `torch.ops.semisparse.<name>`, which is what graphs hold.

For output pixel p, output channel o and activation a::

    y[n,o,p] = a( m[p] * (conv(x,W)[n,o,p] + bias[o]) + (1 - m[p]) * fill[o] + residual[n,o,p] )
"""

from __future__ import annotations

import torch
from torch import Tensor

from semisparse import _library

_library.register()

__all__ = ["ACTIVATIONS", "conv2d", "conv2d_packed", "linear", "max_pool2d", "pack_weight", "unpack_weight"]

ACTIVATIONS = ("none", "relu", "relu6", "silu", "leaky_relu", "hardswish", "sigmoid")

_Pair = int | tuple[int, int]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    *,
    mask: Tensor | None = None,
    fill: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """Two-dimensional convolution that skips masked columns (output pixels), from plain weights.

    Zeros in `weight` are multiplied like any other value, and it is arranged anew at every call: pack it once
    and use `conv2d_packed` where it does not change.

    Weight, bias, fill, residual and the result have the dtype of `input`. float16 is computed in float32 and
    rounded once at the end, but on ARM processors with half-precision arithmetic (Cortex-A76 and newer) where
    that is faster: then products are rounded, and summed some 64 at a time, in float16; what is added up from
    these, and all that follows, is float32. Results beyond 65504 are infinite.

    Args:
        input: float32 or float16 (N, C, H, W), any strides; contiguous and channels_last are read as they
            are.
        weight: (OC, C/groups, KH, KW).
        bias: (OC), or None.
        stride, padding, dilation: one number, or (vertical, horizontal).
        groups: C and OC must be multiples of it; C groups make a depthwise convolution.
        mask: bool (OH, OW), True = computed; None = all. One mask for all channels and the whole batch.
        fill: (OC), what a skipped pixel holds instead of conv + bias; None = zeros.
        activation: one of `ACTIVATIONS`; leaky_relu has slope 0.01.
        residual: (N, OC, OH, OW), added before the activation, at skipped pixels too.

    Returns:
        (N, OC, OH, OW), contiguous whatever the strides of `input`.

    Raises:
        RuntimeError, ValueError: an argument has the wrong dtype, shape or device; says which and what is
        expected.
    """
    return torch.ops.semisparse.conv2d(
        input, weight, bias, stride, padding, dilation, groups,
        mask=mask, fill=fill, activation=activation, residual=residual,
    )  # fmt: skip


def conv2d_packed(
    input: Tensor,
    packed: Tensor,
    weight_shape: tuple[int, int, int, int],
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    *,
    mask: Tensor | None = None,
    fill: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """`conv2d` from a packed weight (overload ``conv2d.packed``): zero weights cost nothing.

    The packed bytes are checked and arranged for this machine at the first call, and kept beside the tensor's
    storage for as long as that lives; treat `packed` as immutable. It has no gradient; everything else has.

    Args:
        packed: uint8 (bytes,) from `pack_weight`, which must have been called with the same `groups`.
        weight_shape: (OC, C/groups, KH, KW) of the weight that was packed.

    The other arguments, the result and the errors are those of `conv2d`; bytes that are truncated, changed or
    from something else raise ValueError.
    """
    return torch.ops.semisparse.conv2d.packed(
        input, packed, weight_shape, bias, stride, padding, dilation, groups,
        mask=mask, fill=fill, activation=activation, residual=residual,
    )  # fmt: skip


def linear(
    input: Tensor,
    packed: Tensor,
    weight_shape: tuple[int, int],
    bias: Tensor | None = None,
    *,
    activation: str = "none",
) -> Tensor:
    """Linear layer ``a(input @ W.T + bias)`` from a packed weight: zero weights cost nothing.

    Packed bytes are treated as by `conv2d_packed`: checked and arranged at the first call, immutable, without
    a gradient; `input` and `bias` have one.

    Args:
        input: float32 or float16 (..., IN), any strides. float16 is computed in float32.
        packed: uint8 (bytes,) from `pack_weight` of a weight of shape (OUT, IN), or (OUT, IN, 1, 1).
        weight_shape: (OUT, IN).
        bias: (OUT), dtype of `input`, or None.
        activation: one of `ACTIVATIONS`; leaky_relu has slope 0.01.

    Returns:
        (..., OUT) in the dtype of `input`, contiguous. Where a zero weight meets an infinite input, the
        result may be NaN, as it is in dense arithmetic.

    Raises:
        RuntimeError, ValueError: an argument has the wrong dtype, shape or device, or the packed bytes are
        truncated, changed or another weight's; says which and what is expected.
    """
    return torch.ops.semisparse.linear(input, packed, weight_shape, bias, activation=activation)


def max_pool2d(
    input: Tensor,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """`torch.nn.functional.max_pool2d` without indices, with vectors along the width of the image.

    PyTorch's own takes an image of contiguous layout pixel by pixel; it is fast for channels_last only.

    Args:
        input: float32 or float16 (N, C, H, W), any strides.
        kernel_size, padding, dilation: one number, or (vertical, horizontal). Padding counts as -infinity,
            and is at most half of the kernel.
        stride: the same; None = kernel_size.
        ceil_mode: a last window that sticks out counts too, unless it would start beyond the image.

    Returns:
        (N, C, OH, OW) in the dtype of `input`, contiguous whatever its strides. A window that holds a NaN
        gives NaN.

    Raises:
        RuntimeError, ValueError: an argument has the wrong dtype, shape or value; says which and what is
        expected.
    """
    return torch.ops.semisparse.max_pool2d(
        input, kernel_size, [] if stride is None else stride, padding, dilation, ceil_mode
    )


def pack_weight(weight: Tensor, groups: int = 1) -> Tensor:
    """Pack a weight: what is not +0.0 is stored, in fewer bytes than CSR.

    Args:
        weight: float32 (OC, C/groups, KH, KW) of a convolution, or (OUT, IN) of a linear layer, which is
            packed (and unpacked) as that of a 1x1 convolution, (OUT, IN, 1, 1). Zeros may have any structure.
            -0.0, which multiplying by a mask makes of negative weights, costs no time but is stored like any
            other value, as unpacking is exact to the bit: add 0.0 to get rid of it.
        groups: of the convolution.

    Returns:
        uint8 (bytes,). Independent of instruction set and tile sizes; with a version and checksums inside.
    """
    return torch.ops.semisparse.pack_weight(weight, groups)


def unpack_weight(packed: Tensor) -> Tensor:
    """Exact inverse of `pack_weight` (also of -0.0 and NaN): float32 (OC, C/groups, KH, KW).

    Raises:
        ValueError: `packed` is truncated, changed, from a newer version, or no packed weight at all.
    """
    return torch.ops.semisparse.unpack_weight(packed)
