"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semisparse import _core
from semisparse.runtime.operators.registry import REMEDY, native, pair


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
    total = [d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True)]
    if padding != "same" or any(size % 2 for size in total):
        raise ValueError(
            f"a convolution with padding={padding!r} and a kernel of {kernel} pads its two sides "
            f"differently, which this runtime does not do; {REMEDY}"
        )
    return [size // 2 for size in total]


@native("semisparse.conv2d.packed semisparse.conv2d.default aten.conv2d aten.conv2d.padding")
def conv2d(
    *, input, weight, bias, stride, padding, dilation, groups, mask, fill, activation, residual, out=None
):
    if isinstance(padding, str):
        padding = _named_padding(padding, weight.shape[2:], dilation)
    return _core.Conv2dCall(
        input, weight, bias, pair(stride), pair(padding), pair(dilation), groups, mask, fill, activation,
        residual, out,
    )  # fmt: skip
