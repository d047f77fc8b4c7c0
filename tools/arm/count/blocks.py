"""Executed blocks of instructions, as the plugin writes them.

QEMU ends a block at a branch, but also at the end of a page and where a buffer of its own is full, which is
after some 90 vector instructions. What follows there is always the same, so such pieces are joined: a loop is
one block, however long it is.
"""

from __future__ import annotations

from collections.abc import Iterable

Block = tuple[int, list[str]]  # how often it ran, its instructions in hexadecimal


def joined(pieces: Iterable[tuple[int, int, list[str]]]) -> list[Block]:
    """Blocks that end with a branch out of (runs, address, instructions); no run is lost or counted twice."""
    left: dict[int, list[list]] = {}  # by address: runs that belong to no block yet, instructions
    for runs, address, words in pieces:
        left.setdefault(address, []).append([runs, words])
    blocks = []
    for address in sorted(left):  # who comes before a piece takes its runs first
        for runs, words in left[address]:
            while runs > 0 and not _branches(words[-1]):
                following = left.get(address + 4 * len(words), ())
                piece = max(following, key=lambda piece: piece[0], default=None)
                if piece is None or piece[0] == 0:
                    break
                together = min(runs, piece[0])
                if together < runs:  # it was left in between, or its end was translated twice
                    blocks.append((runs - together, words))
                piece[0] -= together
                runs, words = together, words + piece[1]
            if runs > 0:
                blocks.append((runs, words))
    return blocks


def _branches(word: str) -> bool:
    number = int(word, 16)
    system = number >> 24 in (0xD4, 0xD5)  # exceptions (svc), barriers, hints: they go on behind
    return number >> 26 & 7 == 5 and not system
