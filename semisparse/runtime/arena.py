"""Where the intermediate results of a network lie: one block of memory, shared by values that are not needed
at the same time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Buffer", "allocate", "place"]

ALIGNMENT = 64  # a cache line, and the widest vector


@dataclass
class Buffer:
    """A piece of memory that is needed from step `first` to step `last`, both included."""

    nbytes: int
    first: int
    last: int


def place(buffers: list[Buffer]) -> tuple[list[int], int]:
    """Offsets of the buffers, and the bytes of the block that holds them.

    Largest first, each at the lowest offset where no buffer lies that is needed at the same time ("greedy by
    size" of Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, 2020).
    """
    offsets = [0] * len(buffers)
    placed: list[int] = []  # by offset
    total = 0
    for index in sorted(range(len(buffers)), key=lambda i: (-buffers[i].nbytes, i)):
        buffer, offset = buffers[index], 0
        for other in placed:
            meets = buffers[other].first <= buffer.last and buffer.first <= buffers[other].last
            if not meets:
                continue
            if offset + buffer.nbytes <= offsets[other]:
                break
            offset = max(offset, _round_up(offsets[other] + buffers[other].nbytes))
        offsets[index] = offset
        total = max(total, offset + buffer.nbytes)
        placed.append(index)
        placed.sort(key=offsets.__getitem__)
    return offsets, total


def allocate(nbytes: int) -> np.ndarray:
    """Aligned memory, uint8 (nbytes,), not initialised."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]


def _round_up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
