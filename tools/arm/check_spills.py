#!/usr/bin/env python3
"""Fails if the inner loop of an ARM micro-kernel touches the stack.

    check_spills.py [--objdump aarch64-linux-gnu-objdump] OBJECT...

A register that does not fit is spilled: stored to the stack and loaded again in every round, and the kernel
loses half of its speed without any test failing. An *inner loop* is a backward branch with no other backward
branch inside it. It belongs to a micro-kernel if it multiplies vectors (`fmla`) at least as often as `--fmla`
says: loops that copy or pack may use the stack, and so may those that store results (`--except`), whose rests
of a vector go through it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass

INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t[0-9a-f]{8} *\t(\S+)\s*(.*)$")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
BRANCH = re.compile(r"^(b\.?\w*|cbn?z|tbn?z)$")


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def touches_stack(self) -> bool:
        return "[sp" in self.operands

    @property
    def target(self) -> int | None:
        """Where a direct branch goes; None for anything else."""
        if not BRANCH.match(self.name):
            return None
        found = re.search(r"(?:^|, )([0-9a-f]+) <", self.operands)
        return int(found.group(1), 16) if found else None


@dataclass(frozen=True)
class Loop:
    function: str
    body: list[Instruction]

    @property
    def fmla(self) -> int:
        return sum(instruction.name == "fmla" for instruction in self.body)

    @property
    def spills(self) -> list[Instruction]:
        return [instruction for instruction in self.body if instruction.touches_stack]


def functions(disassembly: str) -> dict[str, list[Instruction]]:
    found: dict[str, list[Instruction]] = {}
    body: list[Instruction] = []
    for line in disassembly.splitlines():
        if start := FUNCTION.match(line):
            body = found.setdefault(start.group(1), [])
        elif instruction := INSTRUCTION.match(line):
            body.append(
                Instruction(int(instruction.group(1), 16), instruction.group(2), instruction.group(3))
            )
    return found


def inner_loops(name: str, body: list[Instruction]) -> list[Loop]:
    at = {instruction.address: index for index, instruction in enumerate(body)}
    spans = []
    for index, instruction in enumerate(body):
        start = at.get(instruction.target) if instruction.target is not None else None
        if start is not None and start <= index:
            spans.append((start, index))
    inner = [
        (start, end)
        for start, end in spans
        if not any(other != (start, end) and start <= other[0] and other[1] <= end for other in spans)
    ]
    return [Loop(name, body[start : end + 1]) for start, end in inner]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("objects", nargs="+")
    parser.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    parser.add_argument("--fmla", type=int, default=4, help="vector multiplications of a micro-kernel's loop")
    parser.add_argument(
        "--except", dest="excepted", default="store_panel", help="functions not to look at, a regex"
    )
    options = parser.parse_args()
    command = [options.objdump, "-d", "-C", "-w", *options.objects]
    disassembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kernels = [
        loop
        for name, body in functions(disassembly).items()
        if not re.search(options.excepted, name)
        for loop in inner_loops(name, body)
        if loop.fmla >= options.fmla
    ]
    if not kernels:
        print(
            f"no loop with {options.fmla} vector multiplications in {' '.join(options.objects)}",
            file=sys.stderr,
        )
        return 1
    spilled = [loop for loop in kernels if loop.spills]
    for loop in spilled:
        print(
            f"{loop.function}: {len(loop.spills)} of {len(loop.body)} instructions touch the stack:",
            file=sys.stderr,
        )
        for instruction in loop.spills[:8]:
            print(f"    {instruction.address:x}: {instruction.name} {instruction.operands}", file=sys.stderr)
    print(
        f"{len(kernels)} inner loops, {sum(loop.fmla for loop in kernels)} fmla, {len(spilled)} loops spill"
    )
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
