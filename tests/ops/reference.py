"""The operator's formula in float64 with torch's own convolution: shares no code with what it checks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "none": lambda z: z,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
}


def reference(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1,
    *, mask=None, fill=None, activation="none", residual=None,
):  # fmt: skip
    """y = a( m * (conv + bias) + (1 - m) * fill + residual ) in the dtype of `input`; differentiable."""
    z = F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if mask is not None:
        skipped = torch.zeros(weight.shape[0], dtype=z.dtype) if fill is None else fill
        z = torch.where(mask, z, skipped[:, None, None])
    if residual is not None:
        z = z + residual
    return ACTIVATIONS[activation](z)


def double(value):
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def winograd_rounding(weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """By how much rounding may exceed that of plain sums where Winograd may run; None where it never does.

    Kernels divided into the phases of their stride are 3x3 or 4x4. Largest seen, over 40 seeds: 0.75 with
    F(4x4,3x3), 1.84 with F(4x4,4x4), whose transforms have larger constants.
    """
    stride, dilation = ([v, v] if isinstance(v, int) else v for v in (stride, dilation))
    phase = {-(-k // s) for k, s in zip(weight.shape[2:], stride, strict=True)}
    return {(3,): 1.5, (4,): 4.0}.get(tuple(phase)) if list(dilation) == [1, 1] else None


def assert_matches(y, args, kwargs):
    """`y` against the formula, element by element, within float32 rounding of the sums' magnitude.

    The bound grows with sum |x||w| at each output element, so a single wrong tap cannot hide in it; where
    Winograd applies, with the largest such sum among the pixels of its tiles, times what its transforms
    add (`winograd_rounding`).
    """
    rounding = winograd_rounding(*args[1:])
    args, kwargs = [double(a) for a in args], {k: double(v) for k, v in kwargs.items()}
    expected = reference(*args, **kwargs)
    magnitude = reference(
        *[a.abs() if isinstance(a, torch.Tensor) else a for a in args],
        **{
            k: v.abs() if isinstance(v, torch.Tensor) and v.dtype != torch.bool else v
            for k, v in kwargs.items()
        }
        | {"activation": "none"},
    )
    if rounding and y.numel() > 0:
        magnitude = rounding * F.max_pool2d(magnitude, 7, 1, 3)
    assert y.dtype == torch.float32 and y.shape == expected.shape and y.is_contiguous()
    assert not y.isnan().any(), "an output element was not written, or holds NaN"
    error = (y.double() - expected).abs() / (3e-6 * magnitude + 2e-6)
    assert error.numel() == 0 or error.max() < 1, f"{error.max().item():.3g} times the allowed error"
