"""Executed instructions and estimated cycles of layers and networks on ARM, without a board.

    python tools/arm/count [--layers 64@56 ...] [--networks resnet18@224 yolov8n.yaml@320] [--engines NAME...]

Every engine runs in the emulated Python (tools/arm/world.sh) as a Cortex-A76, on one thread, in float32: ours
through the numpy runtime, the others the dense model. The third call is counted. Instructions are exact and
repeatable, whatever else the machine does; cycles are estimates of llvm-mca (cycles.py), with Debian's LLVM
22 where it can be fetched. Neither knows caches: they compare kernels and are no times.

Needs an installed semisparse with the extras eval and engines (ultralytics for YOLO), and what
tools/arm/test.sh needs. What has been counted once is kept in the cache of the arm64 world, by engine
version, model and input: an interrupted run goes on where it was, and only what has changed is counted again
(--fresh: everything).
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from cycles import Block, Estimate, Estimator  # noqa: E402
from functions import Functions  # noqa: E402
from workloads import Run, Workload, digest  # noqa: E402
from world import CACHE, CORES, EMULATED, WHEELS, Lock, estimators, path, prepare, run  # noqa: E402

from semisparse._files import replace_atomically  # noqa: E402
from semisparse._table import text_table  # noqa: E402

ENGINES = ("semisparse", *WHEELS)
LAYERS = ("64@56", "128@28", "256@14", "512@7")
NETWORKS = ("resnet18@224", "yolov8n.yaml@320")
SETTINGS = (
    "dense",
    "columns=0.3+granularity=tile4x4",
    "connectivity=0.72+group=4",
    "connectivity=0.72+group=4+columns=0.3+granularity=tile4x4",
    "pattern+group=4+columns=0.3+granularity=run16",
    "pattern+group=4+connectivity=0.72",
    "pattern+group=4+connectivity=0.72+columns=0.3",
    "pattern+group=4+connectivity=0.72+columns=0.3+granularity=run16",
    "pattern+group=4+connectivity=0.72+columns=0.3+granularity=tile4x4",
)


@dataclass(frozen=True)
class Row:
    run: Run
    version: str
    instructions: int
    estimates: dict[str, Estimate]  # by core
    blocks: list[Block]


def emulate(engine: str, runs: list[Run]) -> Iterator[tuple[Run, list[Block]]]:
    """What each of the runs executed, until one fails."""
    out = CACHE / f"count.{os.getpid()}"
    try:
        done, error = run(
            [HERE.parent / "python.sh", HERE / "driver.py", engine, *[f"{r.file}:{r.option}" for r in runs]],
            ARM_CPU=EMULATED, ARM_PATH=path(engine), ARM_PLUGIN=f"{CACHE / 'plugin.so'},out={out}",
            OMP_NUM_THREADS="1",
        )  # fmt: skip
        regions: dict[int, list[Block]] = {}
        for line in out.read_text().splitlines():
            start, *words = line.split()
            if start == "region":
                blocks = regions.setdefault(int(words[0]), [])
            else:
                blocks.append((int(start), words))
        for tag in map(int, re.findall(r"^\d+$", done, re.MULTILINE)):
            yield runs[tag], regions[tag]
        if error:
            raise SystemExit(f"{engine}: {error}")
    finally:
        out.unlink(missing_ok=True)


def executed(engine: str, version: str, runs: list[Run], fresh: bool) -> dict[Run, list[Block]]:
    """The same, from the cache where it is there."""
    tool = hashlib.sha256((HERE / "driver.py").read_bytes() + (HERE / "plugin.c").read_bytes()).hexdigest()
    store = CACHE / "counts"
    store.mkdir(exist_ok=True)
    keys = {r: hashlib.sha256(f"{version} {tool} {EMULATED} {digest(r)}".encode()).hexdigest() for r in runs}
    files = {r: store / f"{key[:32]}.json.gz" for r, key in keys.items()}
    missing = [r for r in runs if fresh or not files[r].exists()]
    if missing:
        begin = time.monotonic()
        for counted, blocks in emulate(engine, missing):
            with replace_atomically(files[counted]) as file:
                file.write(gzip.compress(json.dumps(blocks).encode(), 1))
        print(f"{engine}: {len(missing)} runs counted in {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return {r: json.loads(gzip.decompress(file.read_bytes())) for r, file in files.items()}


def count(runs: list[Run], version: str, models: list[Estimator], fresh: bool) -> dict[Run, Row]:
    """One engine."""
    rows = {}
    for r, blocks in executed(runs[0].engine, version, runs, fresh).items():
        instructions = sum(times * len(words) for times, words in blocks)
        estimates = {model.core: model.estimate(blocks) for model in models}
        rows[r] = Row(r, version, instructions, estimates, blocks)
    return rows


def report(name: str, rows: list[Row]) -> str:
    """The table of one workload, in millions; then how well our loops use the cores."""
    dense = [row for row in rows if row.run.engine != "semisparse"]
    first = CORES[0]
    instructions = min((row.instructions for row in dense), default=0)
    cycles = min((row.estimates[first].cycles for row in dense), default=0)
    table = [[name, "instructions", *CORES, "/ best engine", f"{first} / best"]]
    for row in rows:
        numbers = (row.instructions, *[row.estimates[core].cycles for core in CORES])
        ratios = [
            f"{number / best:.2f}" if best else ""
            for number, best in zip(numbers, (instructions, cycles), strict=False)
        ]
        table.append(
            [f"{row.run.engine}, {row.run.label}", *[f"{number / 1e6:.2f}" for number in numbers], *ratios]
        )
    return text_table(table)


def efficiency(name: str, rows: list[Row]) -> str:
    """Useful multiply-adds per cycle, of the core's most: in the hottest loop, all such loops, everything."""
    table = [[name, *[f"{core}: {what}" for core in CORES for what in ("hot", "loops", "all")]]]
    for row in rows:
        each = [
            e
            for core in CORES
            for e in (row.estimates[core].hot, row.estimates[core].loops, row.estimates[core].all)
        ]
        table.append([f"{row.run.engine}, {row.run.label}", *[f"{100 * value:.0f}%" for value in each]])
    return text_table(table)


def hottest(row: Row, model: Estimator, number: int) -> str:
    """Our own run's blocks that take most cycles."""
    functions = Functions(next((CACHE / "site-count/semisparse").glob("_core.*.so")))
    table = [["", "of cycles", "runs", "instructions", "of fma peak"]]
    lines = []
    for hot in model.hottest(row.blocks, number):
        name = functions.of(hot.words) or "?"
        table.append(
            [
                name,
                f"{100 * hot.share:.1f}%",
                str(hot.runs),
                str(len(hot.words)),
                f"{100 * hot.efficiency:.0f}%",
            ]
        )
        lines.append("\n".join([f"{name}:", *[f"    {line}" for line in hot.text]]).expandtabs(8))
    return "\n".join([f"{row.run.label}, {model.core}", text_table(table), *lines])


def as_dict(name: str, row: Row) -> dict:
    return {
        "workload": name, "engine": row.run.engine, "version": row.version, "run": row.run.label,
        "instructions": row.instructions,
        **{core: vars(estimate) for core, estimate in row.estimates.items()},
    }  # fmt: skip


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tools/arm/count", description=__doc__, formatter_class=form)
    several = {"nargs": "*", "help": "default: %(default)s"}
    parser.add_argument("--engines", choices=ENGINES, default=ENGINES, metavar="NAME", **several)
    parser.add_argument("--layers", default=LAYERS, metavar="CHANNELS@SIDE", **several)
    parser.add_argument("--networks", default=NETWORKS, metavar="MODEL@SIDE", **several)
    parser.add_argument("--imposed", default=SETTINGS, metavar="SETTING", **several)
    parser.add_argument(
        "--hottest", type=int, default=0, metavar="N", help="also list each run's N hottest blocks"
    )
    parser.add_argument("--fresh", action="store_true", help="count again what the cache has")
    parser.add_argument("-o", "--output", type=Path, default=Path("count.json"), help="default: %(default)s")
    options = parser.parse_args()
    report_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # exporters talk
    lock = Lock()
    versions = prepare(list(options.engines))
    models = estimators()
    for model in models:
        model.remember(CACHE)
    lock.share()
    workloads = [Workload(name, options.imposed) for name in (*options.layers, *options.networks)]
    runs = {w.name: w.write(CACHE / "count" / w.name, options.engines) for w in workloads}
    rows: dict[Run, Row] = {}
    for engine, version in versions.items():
        own = [r for each in runs.values() for r in each if r.engine == engine]
        rows |= count(own, version, models, options.fresh)
    show = functools.partial(print, file=report_to, flush=True)
    show("Millions of instructions and of cycles:")
    for name, each in runs.items():
        show("\n" + report(name, [rows[r] for r in each]))
    show("\nMultiply-adds per cycle, of what the core can do at most:")
    for name, each in runs.items():
        show("\n" + efficiency(name, [rows[r] for r in each]))
    if options.hottest:
        for each in runs.values():
            for r in each:
                if r.engine == "semisparse":
                    show("\n" + hottest(rows[r], models[0], options.hottest))
    results = [as_dict(name, rows[r]) for name, each in runs.items() for r in each]
    with replace_atomically(options.output) as file:
        content = {"emulated": EMULATED, "llvm": models[0].version, "rows": results}
        file.write(json.dumps(content, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
