"""Random operator calls for hypothesis: every argument of the operator, drawn independently."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from reference import ACTIVATIONS

LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "expanded", "strided")
SPARSITIES = ("dense", "unstructured", "pattern", "connectivity", "zero", "negative_zero", "one")
MASKS = (None, "full", "empty", "random", "runs", "one", "tiles")


def examples(count: int) -> int:
    """Number of hypothesis examples; SEMISPARSE_TEST_SCALE scales it (test_isa.py and emulators use less)."""
    return max(5, round(count * float(os.environ.get("SEMISPARSE_TEST_SCALE", "1"))))


@dataclass
class Case:
    """Arguments of a call; `args` and `kwargs` are those of `conv2d` with plain weights."""

    args: tuple
    kwargs: dict
    description: str

    @property
    def groups(self) -> int:
        return self.args[6]

    def __repr__(self) -> str:
        return self.description


def make_input(shape, layout, generator):
    n, c, h, w = shape
    if layout == "channels_last":
        return torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return torch.randn(n, c, w, h, generator=generator).transpose(2, 3)
    if layout == "sliced":  # storage offset, and rows longer than the image
        return torch.randn(n + 1, c + 2, h + 1, w + 3, generator=generator)[1:, 1:-1, :-1, 2:-1]
    if layout == "expanded":  # strides of zero
        return torch.randn(1, c, h, 1, generator=generator).expand(shape)
    if layout == "strided":  # no stride of one
        return torch.randn(n, c, 2 * h, 2 * w, generator=generator)[:, :, ::2, ::2]
    return torch.randn(shape, generator=generator)


def make_weight(shape, sparsity, generator):
    weight = torch.randn(shape, generator=generator)
    oc, ic, kh, kw = shape
    if sparsity == "unstructured":
        weight[torch.rand(shape, generator=generator) < 0.7] = 0
    elif sparsity == "pattern":  # every kernel keeps up to four taps, in one of eight shapes
        library = torch.rand(8, kh * kw, generator=generator).argsort(dim=1) < 4
        chosen = torch.randint(8, (oc, ic), generator=generator)
        weight *= library[chosen].view(shape)
    elif sparsity == "connectivity":  # whole kernels are gone
        weight *= (torch.rand(oc, ic, 1, 1, generator=generator) < 0.3).float()
    elif sparsity == "zero":
        weight.zero_()
    elif sparsity == "negative_zero":
        weight[torch.rand(shape, generator=generator) < 0.5] = -0.0
    elif sparsity == "one":
        weight.zero_()
        weight.view(-1)[int(torch.randint(weight.numel(), (), generator=generator))] = 1.5
    return weight


def make_mask(size, kind, generator):
    h, w = size
    if kind is None:
        return None
    if kind == "full":
        return torch.ones(size, dtype=torch.bool)
    mask = torch.zeros(size, dtype=torch.bool)
    if kind == "random":
        return torch.rand(size, generator=generator) < torch.rand((), generator=generator)
    if kind == "runs":  # aligned runs of columns in im2col order
        length = (4, 8, 16)[int(torch.randint(3, (), generator=generator))]
        runs = torch.rand(-(-h * w // length), generator=generator) < 0.7
        return runs.repeat_interleave(length)[: h * w].reshape(size)
    if kind == "tiles":
        tiles = torch.rand(-(-h // 4), -(-w // 4), generator=generator) < 0.7
        return tiles.repeat_interleave(4, 0).repeat_interleave(4, 1)[:h, :w].contiguous()
    if kind == "one":
        mask.view(-1)[int(torch.randint(h * w, (), generator=generator))] = True
    return mask  # "empty" stays without a computed column


@st.composite
def cases(draw, max_size=20, max_channels=20):
    """A valid call. Sizes cross the register tiles and vectors of every instruction set."""
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (1, 1), (5, 5), (2, 3), (1, 7), (7, 1), (4, 4)]))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (3, 2)]))
    padding = draw(st.sampled_from([(0, 0), (1, 1), (1, 1), (2, 0), (0, 3), (4, 4)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]))
    batch = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["plain", "plain", "groups", "depthwise"]))
    if kind == "plain":
        groups, in_channels = 1, draw(st.integers(1, max_channels))
        out_channels = draw(st.integers(1, max_channels))
    elif kind == "depthwise":
        groups = in_channels = draw(st.integers(2, max_channels))
        out_channels = groups * draw(st.integers(1, 2))
    else:
        groups = draw(st.integers(2, 4))
        in_channels, out_channels = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 6))
    size, out = [], []
    for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True):
        smallest = max(1, d * (k - 1) + 1 - 2 * p)
        size.append(draw(st.integers(smallest, max(smallest, max_size))))
        out.append((size[-1] + 2 * p - d * (k - 1) - 1) // s + 1)
    layout, sparsity = draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(SPARSITIES))
    mask_kind, activation = draw(st.sampled_from(MASKS)), draw(st.sampled_from(list(ACTIVATIONS)))
    has_bias, has_fill = draw(st.booleans()), draw(st.booleans())
    residual_layout = draw(st.sampled_from([None, None, "contiguous", "channels_last"]))
    seed = draw(st.integers(0, 2**31 - 1))

    g = torch.Generator().manual_seed(seed)
    weight = make_weight((out_channels, in_channels // groups, *kernel), sparsity, g)
    residual = None
    if residual_layout:
        residual = torch.randn(batch, out_channels, *out, generator=g)
        if residual_layout == "channels_last":
            residual = residual.contiguous(memory_format=torch.channels_last)
    return Case(
        args=(
            make_input((batch, in_channels, *size), layout, g),
            weight,
            torch.randn(out_channels, generator=g) if has_bias else None,
            list(stride), list(padding), list(dilation), groups,
        ),
        kwargs={
            "mask": make_mask(tuple(out), mask_kind, g),
            "fill": torch.randn(out_channels, generator=g) if has_fill else None,
            "activation": activation,
            "residual": residual,
        },
        description=f"input {(batch, in_channels, *size)} {layout}, weight {tuple(weight.shape)} {sparsity}, "
        f"stride {stride}, padding {padding}, dilation {dilation}, groups {groups}, mask {mask_kind}, "
        f"{activation}, bias {has_bias}, fill {has_fill}, residual {residual_layout}, seed {seed}",
    )  # fmt: skip
