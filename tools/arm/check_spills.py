#!/usr/bin/env python3
"""Fails if a loop of an ARM kernel keeps on the stack what belongs into registers.

    check_spills.py DIRECTORY        a build directory of the core: every kernel family found in it
    check_spills.py FILE.s...

A register that does not fit is spilled: stored to the stack and loaded again in every round, and the kernel
loses half of its speed without any test failing. The compiler itself knows which stores and loads those are,
so what is read here is its assembly, with its comments: compile with `-save-temps=obj -fverbose-asm`
(tools/arm/core_tests.sh does), and it lies beside the objects.

A *family* is a folder with an object for this architecture (`<family>/neon*.cc`). One in which no loop of
vector instructions is found is an error, so that none drops out unnoticed. *Loops* are cycles of instructions
without a call: what is saved around a call that most rounds do without (`memcpy` for the rest of a row) costs
these nothing. In a loop with vector instructions, an access to memory is

- a **spill** where the compiler made the place up (GCC: `%sfp`; Clang: `Spill`, `Reload`), or where it left
  an array of vector registers (`Reg acc[4][6]`) in memory: values that the source keeps in registers. In a
  loop around others only those of vectors count;
- **scratch** where it is to a named array of numbers on the stack: `float half[]` between the two passes of a
  Winograd transform, whose 36 vectors do not fit 32 registers, the rest of a row in `store_n`. The source
  asks for these. They are counted where the compiler names them, and no error.

known_spills.txt lists what is known and tolerated, function by function, with the reason: more than that is
an error.
"""

from __future__ import annotations

import argparse
import collections
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_FUNCTION = re.compile(r"^\t\.type\t(\S+), [%@]function")
_LABEL = re.compile(r"^([\w.$]+):")
_INSTRUCTION = re.compile(r"^\t([a-z][\w.]*)(?:\t([^/]*))?(?://(.*))?$")
_SOURCE = re.compile(r"^// (\S+:\d+):")
_BRANCH = re.compile(r"^(b|b\.\w+|b(eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)|cbn?z|tbn?z)$")
_MEMORY = re.compile(r"\[(sp|[xw]\d+)\b")
_VECTOR = re.compile(r"\bv\d+\.|\bq\d+\b")
_COMPILERS = re.compile(r"%sfp|-byte (Folded )?(Spill|Reload)")
# An element of an array of vector registers: of a variable (acc[1][2]), or through a reference to it.
_REGISTERS = re.compile(r"MEM\[\((const )?(__Float|__Int|__Uint|vector)[^\]]*\]|(^|, )[a-zA-Z]\w*\[\w+\]")


@dataclass(frozen=True)
class Instruction:
    name: str
    operands: str
    comment: str

    @property
    def target(self) -> str | None:
        """The label that a branch goes to."""
        return self.operands.split(",")[-1].strip() if _BRANCH.match(self.name) else None

    @property
    def calls(self) -> bool:
        return self.name in ("bl", "blr")

    @property
    def ends_block(self) -> bool:
        return self.target is not None or self.calls or self.name in ("ret", "br")

    @property
    def vector(self) -> bool:
        return bool(_VECTOR.search(self.operands))

    @property
    def spill(self) -> bool:
        if not _MEMORY.search(self.operands):
            return False
        return bool(_COMPILERS.search(self.comment)) or (
            self.vector and bool(_REGISTERS.search(self.comment.strip()))
        )

    @property
    def scratch(self) -> bool:
        memory = _MEMORY.search(self.operands)
        return bool(memory) and not self.spill and (memory.group(1) == "sp" or ")&" in self.comment)


@dataclass(frozen=True, eq=False)
class Loop:
    family: str
    function: str
    source: str  # file:line of the source that most of its instructions come from
    body: list[Instruction]
    inner: bool

    @property
    def fmla(self) -> int:
        return sum(i.name == "fmla" for i in self.body)

    @property
    def scratch(self) -> int:
        return sum(i.scratch for i in self.body)

    @property
    def spills(self) -> list[Instruction]:
        """Around an inner loop numbers may wait on the stack, vectors not."""
        return [i for i in self.body if i.spill and (self.inner or i.vector)]


@dataclass
class Function:
    name: str
    body: list[Instruction]
    sources: list[str]  # of each instruction
    labels: dict[str, int]  # label -> the instruction that follows it


def functions(lines: Iterable[str]) -> list[Function]:
    found: list[Function] = []
    names, current, source = set(), None, ""
    for line in lines:
        if start := _FUNCTION.match(line):
            names.add(start.group(1))
        elif label := _LABEL.match(line):
            if label.group(1) in names:
                current = Function(label.group(1), [], [], {})
                found.append(current)
                source = ""
            elif current is not None:
                current.labels[label.group(1)] = len(current.body)
        elif place := _SOURCE.match(line):
            source = place.group(1)
        elif current is not None and (instruction := _INSTRUCTION.match(line)):
            name, operands, comment = instruction.groups()
            current.body.append(Instruction(name, (operands or "").strip(), comment or ""))
            current.sources.append(source)
    return found


def blocks(function: Function) -> tuple[list[range], list[set[int]]]:
    """Basic blocks (instructions that run one after the other) and where each goes next. A block that calls
    another function goes nowhere: a loop that has to call is no inner loop, and what is saved around a call
    that a round may do without (for the rest of a row) costs other rounds nothing."""
    body = function.body
    starts = {0, *function.labels.values()}
    starts |= {index + 1 for index, instruction in enumerate(body) if instruction.ends_block}
    order = sorted(start for start in starts if start < len(body))
    ranges = [range(start, end) for start, end in zip(order, [*order[1:], len(body)], strict=True)]
    number = {span.start: index for index, span in enumerate(ranges)}
    follow: list[set[int]] = []
    for index, span in enumerate(ranges):
        last, goes = body[span[-1]], set()
        if not last.calls:
            if last.target in function.labels:
                goes.add(number.get(function.labels[last.target]))
            if last.name not in ("b", "ret", "br"):
                goes.add(index + 1)
        follow.append({to for to in goes if to is not None and to < len(ranges)})
    return ranges, follow


def cycles(nodes: set[int], follow: list[set[int]]) -> list[set[int]]:
    """The strongly connected components that hold a cycle (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    found = []
    for root in sorted(nodes):
        if root in index:
            continue
        work = [(root, iter(sorted(follow[root] & nodes)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            node, rest = work[-1]
            for to in rest:
                if to not in index:
                    index[to] = low[to] = len(index)
                    stack.append(to)
                    work.append((to, iter(sorted(follow[to] & nodes))))
                    break
                if to in stack:
                    low[node] = min(low[node], index[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = set(stack[stack.index(node) :])
                    del stack[stack.index(node) :]
                    if len(component) > 1 or node in follow[node]:
                        found.append(component)
    return found


def nests(nodes: set[int], follow: list[set[int]]) -> list[tuple[set[int], bool]]:
    """The blocks of each loop among `nodes` without those of the loops in it, and whether there are none."""
    found = []
    for loop in cycles(nodes, follow):
        outside = [to for node in set(range(len(follow))) - loop for to in follow[node] & loop]
        header = min(outside, default=min(loop))
        inside = nests(loop, [to - {header} for to in follow])
        found += [(loop.difference(*[blocks for blocks, _ in inside]), not inside), *inside]
    return found


def loops_of(family: str, function: Function) -> list[Loop]:
    ranges, follow = blocks(function)
    loops = []
    for loop, inner in nests(set(range(len(ranges))), follow):
        places = [place for block in sorted(loop) for place in ranges[block]]
        body = [function.body[place] for place in places]
        if any(instruction.vector for instruction in body):
            source = collections.Counter(function.sources[place] for place in places).most_common(1)[0][0]
            loops.append(Loop(family, function.name, source, body, inner))
    return loops


def loops_in(family: str, file: Path) -> list[Loop]:
    """
    Raises:
        ValueError: the compiler did not say what its stores and loads are.
    """
    text = file.read_text()
    if not re.search(r"^// (options passed|GNU C)|^\t// ", text, re.MULTILINE):
        raise ValueError(f"{file} was not compiled with -fverbose-asm: spills cannot be told")
    return [loop for function in functions(text.splitlines()) for loop in loops_of(family, function)]


def demangled(names: list[str]) -> list[str]:
    if not names:
        return []
    result = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def assembly(paths: list[Path]) -> dict[str, list[Path]]:
    """The files to read, by family.

    Raises:
        ValueError: a folder has an object of a kernel family without its assembly, or none at all.
    """
    found: dict[str, list[Path]] = collections.defaultdict(list)
    for path in paths:
        if not path.is_dir():
            found[path.stem].append(path)
            continue
        objects = sorted(path.rglob("neon*.o"))
        if not objects:
            raise ValueError(
                f"{path} holds no neon*.o: build the core for ARM there (tools/arm/core_tests.sh)"
            )
        for object in objects:
            file = object.with_suffix(".s")
            if not file.exists():
                raise ValueError(
                    f"{object} has no assembly beside it: compile with -save-temps=obj -fverbose-asm"
                )
            found[object.parent.name].append(file)
    return found


@dataclass(frozen=True)
class Known:
    """A line of known_spills.txt."""

    family: str
    function: re.Pattern
    accesses: int


def read_known(text: str) -> list[Known]:
    found = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            family, function, accesses, reason = line.split(" | ")
            if not reason.strip():
                raise ValueError(f"{line!r} gives no reason")
            found.append(Known(family, re.compile(function), int(accesses)))
    return found


def check(family: str, loops: list[Loop], known: list[Known], show: int) -> bool:
    """Print what was found in a family; whether that is no more than what is known."""
    names = dict(zip(loops, demangled([loop.function for loop in loops]), strict=True))
    spilled: dict[str, list[Loop]] = collections.defaultdict(list)
    for loop in loops:
        if loop.spills:
            spilled[names[loop]].append(loop)
    accesses = {name: sum(len(loop.spills) for loop in found) for name, found in spilled.items()}
    inner, fmla, scratch = (
        sum(number) for number in zip(*[(loop.inner, loop.fmla, loop.scratch) for loop in loops], strict=True)
    )
    print(
        f"{family:<12} {inner:4} inner loops with vectors, {fmla:5} fmla; "
        f"{sum(map(len, spilled.values())):3} loops spill ({sum(accesses.values())} accesses), "
        f"scratch {scratch}"
    )
    good = True
    for name, found in spilled.items():
        allowed = [k.accesses for k in known if k.family == family and k.function.search(name)]
        if allowed and accesses[name] <= max(allowed):
            continue
        good = False
        print(
            f"  {name}\n    {accesses[name]} accesses, known are {max(allowed, default=0)}", file=sys.stderr
        )
        for loop in found:
            kind = "inner loop" if loop.inner else "loop around others"
            print(f"    {kind} at {loop.source}: {len(loop.spills)} of {len(loop.body)}", file=sys.stderr)
            for instruction in loop.spills[:show]:
                print(
                    f"      {instruction.name} {instruction.operands} //{instruction.comment}",
                    file=sys.stderr,
                )
    for entry in known:
        if entry.family == family:
            now = [number for name, number in accesses.items() if entry.function.search(name)]
            if max(now, default=0) < entry.accesses:
                print(f"  {entry.function.pattern}: {max(now, default=0)} now, {entry.accesses} are known")
    return good


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument(
        "--show", type=int, default=4, metavar="N", help="instructions of each loop; default 4"
    )
    parser.add_argument("--known", type=Path, default=Path(__file__).with_name("known_spills.txt"))
    options = parser.parse_args()
    known = read_known(options.known.read_text())
    try:
        families = assembly(options.paths)
        found = {
            family: [loop for file in files for loop in loops_in(family, file)]
            for family, files in families.items()
        }
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for family in sorted(found):
        if not any(loop.inner for loop in found[family]):
            print(f"{family}: no loop with vector instructions in {families[family][0]}", file=sys.stderr)
            return 1
    good = [check(family, loops, known, options.show) for family, loops in sorted(found.items())]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
