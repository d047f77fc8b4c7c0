"""Which function of a shared library a block of executed instructions belongs to."""

from __future__ import annotations

import bisect
import re
import subprocess
from pathlib import Path


class Functions:
    """Of a library with its symbols; blocks are found by their instructions, for nobody knows where it was
    loaded."""

    def __init__(self, library: Path):
        sections = subprocess.run(
            ["aarch64-linux-gnu-objdump", "-h", "-j", ".text", library],
            text=True, capture_output=True, check=True,
        ).stdout  # fmt: skip
        size, address, offset = (
            int(re.search(r"\.text\s+(\w+)\s+(\w+)\s+\w+\s+(\w+)", sections).group(i), 16) for i in (1, 2, 3)
        )
        self._text = library.read_bytes()[offset : offset + size]
        names = subprocess.run(
            ["aarch64-linux-gnu-nm", "-C", "--defined-only", library],
            text=True, capture_output=True, check=True,
        ).stdout  # fmt: skip
        symbols = sorted(
            (int(start, 16) - address, name)
            for start, name in re.findall(r"^(\w+) [tTwW] (?!\$)(.*)$", names, re.MULTILINE)
        )
        self._starts = [start for start, _ in symbols]
        self._names = [name for _, name in symbols]

    def of(self, words: list[str]) -> str:
        """The function's name without namespaces and arguments; empty where it is not in this library, or in
        several places."""
        code = b"".join(int(word, 16).to_bytes(4, "little") for word in words)
        place = self._text.find(code)
        if place < 0:
            return ""
        name = self._name(place)
        again = self._text.find(code, place + 4)
        while again >= 0:
            if self._name(again) != name:
                return ""
            again = self._text.find(code, again + 4)
        return name

    def _name(self, place: int) -> str:
        name = self._names[bisect.bisect(self._starts, place) - 1]
        name = name.replace("(anonymous namespace)::", "").replace("semisparse::", "").replace("neon::", "")
        return re.sub(r"\(.*", "", name)
