"""Which algorithm computes a packed convolution: the library's own choice, and ways to overrule it.

`im2col` computes anything and skips masked columns and zero weights. `direct` does so without packing, but
computes whole vectors of neighbouring pixels wherever one of them is not masked. `winograd4` and `winograd2`
(F(4x4,3x3) and F(2x2,3x3); Lavin & Gray, arXiv:1509.09308) need 4 and 2.25 times fewer multiplications for
3x3 kernels of stride 1, and skip whole kernels that are zero and whole tiles (4x4, 2x2 pixels) that are
masked. Kernels that are 3x3 after division by their stride (5x5 and 6x6 of stride 2) run so on the phases of
their input; those that are 4x4 (7x7 and 8x8 of stride 2), with F(4x4,4x4), under `winograd4`. `automatic`
takes what is estimated to be fastest for shape, sparsity, mask and instruction set. Depthwise convolutions
have an algorithm of their own, `depthwise`. The environment variable SEMISPARSE_ALGORITHM forces one from
the start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from semisparse import _library
from semisparse.tuning_file import ALGORITHMS as ALGORITHMS

_library.register()

AUTOMATIC = "automatic"


@contextlib.contextmanager
def forced(name: str) -> Iterator[None]:
    """All packed convolutions of the process run algorithm `name` inside; those it does not apply to, im2col.

    Raises RuntimeError or ValueError if there is no such algorithm.
    """
    before = torch.ops.semisparse.force_algorithm(name)
    try:
        yield
    finally:
        torch.ops.semisparse.force_algorithm(before)


def prefer(packed: Tensor, input_size: tuple[int, int], name: str) -> None:
    """From now on, convolutions of inputs of (height, width) `input_size` with this weight run `name`.

    `packed` stands for its content: copies of it count as the same. `automatic` takes the preference back.
    """
    torch.ops.semisparse.prefer_algorithm(packed, input_size, name)


def chosen(
    packed: Tensor,
    input_size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    *,
    mask: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> str:
    """The algorithm that a convolution with these arguments, of an input of `dtype`, runs at present: one of
    `ALGORITHMS`."""
    return torch.ops.semisparse.chosen_algorithm(
        packed, input_size, stride, padding, dilation, mask=mask, half=dtype == torch.float16
    )
