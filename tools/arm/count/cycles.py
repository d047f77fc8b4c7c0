"""Estimated cycles of executed blocks of ARM instructions, by llvm-mca.

The estimate knows no caches and no mispredicted branches, and takes each block for a loop of its own: a bound
by ports and dependencies with everything in the L1 cache. It compares kernels; it claims no time.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

_ITERATIONS = 100
# llvm-mca charges a call 100 cycles, and has no model of system instructions.
_BRANCH = re.compile(r"^(bl|blr|br|ret)\b.*")
_SYSTEM = re.compile(r"^(svc|mrs|msr|udf|brk|hint|dmb|isb|dc|ic|sys)\b")

Block = tuple[int, list[str]]  # how often it ran, its instructions in hexadecimal


class Estimator:
    """llvm-mca for one core.

    Args:
        core: as LLVM spells it, e.g. neoverse-n1.
        bin: directory of llvm-mc and llvm-mca; None: those of PATH.
        libraries: directories of shared libraries that these need.
    """

    def __init__(self, core: str, bin: Path | None = None, libraries: Sequence[Path] = ()):
        self.core = core
        self._bin = bin
        self._environment = {"LD_LIBRARY_PATH": ":".join(map(str, libraries))} if libraries else None
        self._text: dict[str, str] = {}
        self._unknown: set[str] = set()

    def cycles(self, blocks: Sequence[Block], share: float = 0.999) -> float:
        """Of the blocks that make up `share` of the executed instructions, scaled to all of them."""
        blocks = sorted(blocks, key=lambda block: -block[0] * len(block[1]))
        total = sum(runs * len(words) for runs, words in blocks)
        chosen, covered = [], 0
        for block in blocks:
            if covered >= share * total:
                break
            chosen.append(block)
            covered += block[0] * len(block[1])
        self._disassemble({word for _, words in chosen for word in words})
        each = self._analyse([words for _, words in chosen])
        return sum(runs * cycles for (runs, _), cycles in zip(chosen, each, strict=True)) * total / covered

    def _run(self, tool: str, options: list[str], text: str) -> subprocess.CompletedProcess:
        command = str(self._bin / tool) if self._bin else tool
        return subprocess.run(
            [command, "-mtriple=aarch64" if tool == "llvm-mca" else "-triple=aarch64", *options],
            input=text, text=True, capture_output=True, env=self._environment,
        )  # fmt: skip

    def _disassemble(self, words: set[str]) -> None:
        new = sorted(words - self._text.keys())
        source = "\n".join(" ".join("0x" + word[i : i + 2] for i in (6, 4, 2, 0)) for word in new)
        attributes = "+v8.6a,+fp16fml,+sve,+sve2"
        result = self._run("llvm-mc", ["--disassemble", f"-mattr={attributes}"], source)
        lines = [line.strip() for line in result.stdout.splitlines()]
        lines = [line for line in lines if line and not line.startswith(".")]
        if len(lines) != len(new):
            raise RuntimeError(
                f"llvm-mc understood {len(lines)} of {len(new)} instructions: {result.stderr[:500]}"
            )
        self._text.update(zip(new, lines, strict=True))

    def _line(self, word: str) -> str:
        text = self._text[word]
        return "nop" if text in self._unknown or _SYSTEM.match(text) else _BRANCH.sub("b #4", text)

    def _analyse(self, blocks: list[list[str]]) -> list[float]:
        options = [f"-mcpu={self.core}", f"-iterations={_ITERATIONS}", "-instruction-info=false",
                   "-resource-pressure=false"]  # fmt: skip
        for _ in range(50):
            lines = []
            for number, words in enumerate(blocks):
                lines += [f"# LLVM-MCA-BEGIN {number}", *map(self._line, words), f"# LLVM-MCA-END {number}"]
            result = self._run("llvm-mca", options, "\n".join(lines) + "\n")
            found = [
                int(cycles) for cycles in re.findall(r"^Total Cycles:\s+(\d+)", result.stdout, re.MULTILINE)
            ]
            if len(found) == len(blocks):
                return [cycles / _ITERATIONS for cycles in found]
            unknown = {lines[int(row) - 1] for row in re.findall(r"<stdin>:(\d+):\d+: error", result.stderr)}
            named = re.findall(r"note: instruction:\s*(.*)", result.stderr)
            plain = {" ".join(text.split()) for text in named}
            unknown |= {text for text in self._text.values() if " ".join(text.split()) in plain}
            if not unknown - self._unknown:
                raise RuntimeError(f"llvm-mca for {self.core}: {result.stderr[:500]}")
            self._unknown |= unknown  # counted as nops: forms that this model lacks
        raise RuntimeError(f"llvm-mca for {self.core} does not end: {result.stderr[:500]}")
