"""Estimated cycles of executed blocks of ARM instructions, by llvm-mca.

The estimate knows no caches and no mispredicted branches, and takes each block for a loop of its own: a bound
by ports and dependencies with everything in the L1 cache. It compares kernels; it claims no time.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blocks import Block

from semisparse._files import replace_atomically

_ITERATIONS = 100
# llvm-mca charges a call 100 cycles, and has no model of system instructions.
_BRANCH = re.compile(r"^(bl|blr|br|ret)\b.*")
_SYSTEM = re.compile(r"^(svc|mrs|msr|udf|brk|hint|dmb|isb|dc|ic|sys)\b")

_SHARE = 0.99  # the rest, thousands of blocks that ran a few times, is taken to be like it
_AT_ONCE = 500  # blocks in one call of llvm-mca


@dataclass(frozen=True)
class Estimate:
    """What llvm-mca says of executed blocks.

    Attributes:
        cycles: of all of them.
        products: multiply-adds, of single numbers.
        hot: of the block with most multiply-adds: these per cycle, as a fraction of the core's peak.
        loops: the same of all blocks of which a third or more are multiply-adds.
        all: the same of everything.
    """

    cycles: int
    products: int
    hot: float
    loops: float
    all: float


@dataclass(frozen=True)
class Hot:
    """One block of `Estimator.hottest`: its instructions, how often it ran, the fraction of all cycles that
    it takes, and its multiply-adds per cycle as a fraction of the core's peak."""

    text: list[str]
    words: list[str]
    runs: int
    share: float
    efficiency: float


class Estimator:
    """llvm-mca for one core.

    Args:
        core: as LLVM spells it, e.g. neoverse-n1.
        bin: directory of llvm-mc and llvm-mca; None: those of PATH.
        libraries: directories of shared libraries that these need.
        half: the peak is that of multiply-adds in half precision.
    """

    def __init__(
        self, core: str, bin: Path | None = None, libraries: Sequence[Path] = (), half: bool = False
    ):
        self.core = core
        self.half = half
        self._bin = bin
        self._environment = {"LD_LIBRARY_PATH": ":".join(map(str, libraries))} if libraries else None
        self._text: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._cycles: dict[str, float] = {}
        self._memory: Path | None = None

    def remember(self, folder: Path) -> None:
        """Keep cycles of blocks in a file there, and take them from it: llvm-mca is slow."""
        self._memory = folder / f"cycles-{self.core}-{self.version}-{_ITERATIONS}.json"
        if self._memory.exists():
            self._cycles = json.loads(self._memory.read_text())

    @property
    def version(self) -> str:
        return re.search(r"LLVM version (\S+)", self._run("llvm-mca", ["--version"], "").stdout).group(1)

    @functools.cached_property
    def peak(self) -> float:
        """Multiply-adds of single numbers per cycle, at most: of 24 independent ones on whole registers."""
        # fmla vN.4s, v0.4s, v25.s[0]; fmla vN.8h, v0.8h, v15.h[0]
        first, lanes = (0x4F0F1000, 8) if self.half else (0x4F991000, 4)
        words = [f"{first | register:08x}" for register in range(25) if register != 15]
        self._disassemble(set(words))
        return lanes * len(words) / self._analyse([words])[0]

    def estimate(self, blocks: Sequence[Block], share: float = _SHARE) -> Estimate:
        """Of the blocks that make up `share` of the executed instructions, scaled to all of them."""
        chosen, covered = self._most(blocks, share)
        each = self._known([words for _, words in chosen])
        cycles = [runs * number for (runs, _), number in zip(chosen, each, strict=True)]
        products = [runs * sum(map(self._fma, words)) for runs, words in chosen]
        hot = max(range(len(chosen)), key=products.__getitem__)
        loops = [
            i
            for i, (_, words) in enumerate(chosen)
            if 3 * sum(map(bool, map(self._fma, words))) >= len(words)
        ]
        spent = sum(cycles[i] for i in loops)
        return Estimate(
            round(sum(cycles) / covered),
            sum(products),
            products[hot] / (cycles[hot] * self.peak),
            sum(products[i] for i in loops) / (spent * self.peak) if spent else 0.0,
            sum(products) / (sum(cycles) / covered * self.peak),
        )

    def hottest(self, blocks: Sequence[Block], count: int) -> list[Hot]:
        """The blocks that take most cycles."""
        chosen, covered = self._most(blocks, _SHARE)
        each = self._known([words for _, words in chosen])
        total = sum(runs * cycles for (runs, _), cycles in zip(chosen, each, strict=True)) / covered
        found = [
            Hot(
                [self._text[word] for word in words], words, runs, runs * cycles / total,
                sum(map(self._fma, words)) / (cycles * self.peak),
            )
            for (runs, words), cycles in zip(chosen, each, strict=True)
        ]  # fmt: skip
        return sorted(found, key=lambda hot: -hot.share)[:count]

    def _most(self, blocks: Sequence[Block], share: float) -> tuple[list[Block], float]:
        """The blocks that make up `share` of the executed instructions, and their exact share."""
        blocks = sorted(blocks, key=lambda block: -block[0] * len(block[1]))
        total = sum(runs * len(words) for runs, words in blocks)
        chosen, covered = [], 0
        for block in blocks:
            if covered >= share * total:
                break
            chosen.append(block)
            covered += block[0] * len(block[1])
        self._disassemble({word for _, words in chosen for word in words})
        return chosen, covered / total

    def _known(self, blocks: list[list[str]]) -> list[float]:
        """Cycles of each block, those that were seen before from memory."""
        keys = ["".join(words) for words in blocks]
        new = {key: words for key, words in zip(keys, blocks, strict=True) if key not in self._cycles}
        names = list(new)
        for first in range(0, len(names), _AT_ONCE):
            part = names[first : first + _AT_ONCE]
            self._cycles.update(zip(part, self._analyse([new[name] for name in part]), strict=True))
        if new and self._memory:
            with replace_atomically(self._memory) as file:
                file.write(json.dumps(self._cycles).encode())
        return [self._cycles[key] for key in keys]

    def _fma(self, word: str) -> int:
        """How many numbers an instruction multiplies and adds."""
        name, _, operands = self._text[word].partition("\t")
        if name in ("fmadd", "fmsub", "fnmadd", "fnmsub"):
            return 1
        if name not in ("fmla", "fmls"):
            return 0
        lanes = re.match(r"v\d+\.(\d+)[hsd]", operands)
        return int(lanes.group(1)) if lanes else 1

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
