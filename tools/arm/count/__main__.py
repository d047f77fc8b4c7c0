"""Executed instructions and estimated cycles of layers and networks on ARM, without a board.

    python tools/arm/count [--layers 64@56 ...] [--networks resnet18@224 yolov8n.yaml@320] [--engines NAME...]

Every engine runs in the emulated Python (tools/arm/world.sh) as a Cortex-A76, on one thread, in float32: ours
through the numpy runtime, the others the dense model. With --dtype float16 those that have arithmetic for it
compute in half precision, ours through torch's operators (some ten thousand instructions more for each). The
third call is counted. Instructions are exact and repeatable, whatever else the machine does; cycles are
estimates of llvm-mca (cycles.py), with Debian's LLVM 22 where it can be fetched. Neither knows caches: they
compare kernels and are no times.

Needs an installed semisparse with the extras eval and engines (ultralytics for YOLO), and what
tools/arm/test.sh needs. What has been counted once is kept in the cache of the arm64 world, by engine
version, model and input: an interrupted run goes on where it was, and only what has changed is counted again
(--fresh: everything).
"""

from __future__ import annotations

import argparse
import ast
import functools
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from blocks import Block, joined  # noqa: E402
from cycles import Estimate, Estimator  # noqa: E402
from functions import Functions  # noqa: E402
from workloads import Run, Workload, digest  # noqa: E402
from world import CACHE, EMULATED, WHEELS, Lock, estimators, own_site, path, prepare  # noqa: E402

from semisparse._files import replace_atomically  # noqa: E402
from semisparse._table import text_table  # noqa: E402

ENGINES = ("semisparse", *WHEELS)
HALF_ENGINES = ("semisparse", "ncnn", "mnn")
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
    """What each of the runs executed, one after the other.

    Raises:
        RuntimeError: the engine failed; what came before is good.
    """
    out = CACHE / f"count.{os.getpid()}"
    command = [HERE.parent / "python.sh", HERE / "driver.py", engine, *[f"{r.file}:{r.option}" for r in runs]]
    environment = os.environ | {
        "ARM_CPU": EMULATED,
        "ARM_PATH": path(engine, runs[0].option == "float16"),
        "ARM_PLUGIN": f"{CACHE / 'plugin.so'},out={out}",
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            list(map(str, command)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            close_fds=False,
        )
        try:
            for line in process.stdout:
                if line.strip().isdigit():
                    yield runs[int(line)], region(out, int(line))
        finally:
            if sys.exc_info()[0] is not None:
                process.kill()
            status = process.wait()
            out.unlink(missing_ok=True)
        if status:
            said.seek(0)
            raise RuntimeError(f"{engine} failed:\n{said.read()[-2000:]}")


def region(out: Path, tag: int) -> list[Block]:
    """A region of the plugin's file."""
    pieces = []
    inside = False
    with open(out) as file:
        for line in file:
            start, *words = line.split()
            if start == "region":
                inside = int(words[0]) == tag
            elif inside:
                pieces.append((int(start), int(words[0], 16), words[1:]))
    return joined(pieces)


def tool_digest(engine: str) -> str:
    """Of what counts, and of how the driver runs this engine."""
    text = (HERE / "driver.py").read_text()
    parts = [
        ast.get_source_segment(text, part)
        for part in ast.parse(text).body
        if getattr(part, "name", "") in ("mark", engine) or ast.unparse(part).startswith("_WARM_UP")
    ]
    files = (HERE / "plugin.c", HERE / "blocks.py")
    return hashlib.sha256("".join(parts).encode() + b"".join(map(Path.read_bytes, files))).hexdigest()


def executed(engine: str, version: str, runs: list[Run], fresh: bool) -> Iterator[tuple[Run, list[Block]]]:
    """The same, from the cache where it is there."""
    tool = tool_digest(engine)
    store = CACHE / "counts"
    store.mkdir(exist_ok=True)
    keys = {r: hashlib.sha256(f"{version} {tool} {EMULATED} {digest(r)}".encode()).hexdigest() for r in runs}
    files = {r: store / f"{key[:32]}.json.gz" for r, key in keys.items()}
    missing = [r for r in runs if fresh or not files[r].exists()]
    for r in runs:
        if r not in missing:
            yield r, json.loads(gzip.decompress(files[r].read_bytes()))
    begin = time.monotonic()
    for r, blocks in emulate(engine, missing) if missing else ():
        with replace_atomically(files[r]) as file:
            file.write(gzip.compress(json.dumps(blocks).encode(), 1))
        print(
            f"{r.engine}, {r.file.parent.name}, {r.label}: {time.monotonic() - begin:.0f} s", file=sys.stderr
        )
        yield r, blocks


def count(
    runs: list[Run], version: str, models: list[Estimator], fresh: bool
) -> tuple[dict[Run, Row], RuntimeError | None]:
    """One engine: what was counted, and why not the rest."""
    rows: dict[Run, Row] = {}
    try:
        for r, blocks in executed(runs[0].engine, version, runs, fresh):
            instructions = sum(times * len(words) for times, words in blocks)
            rows[r] = Row(
                r, version, instructions, {model.core: model.estimate(blocks) for model in models}, blocks
            )
    except RuntimeError as error:
        return rows, error
    return rows, None


def report(name: str, rows: list[Row]) -> str:
    """The table of one workload, in millions; then how well our loops use the cores."""
    dense = [row for row in rows if row.run.engine != "semisparse"]
    cores = list(rows[0].estimates) if rows else []
    first = cores[0] if cores else ""
    instructions = min((row.instructions for row in dense), default=0)
    cycles = min((row.estimates[first].cycles for row in dense), default=0)
    table = [[name, "instructions", *cores, "/ best engine", f"{first} / best"]]
    for row in rows:
        numbers = (row.instructions, *[row.estimates[core].cycles for core in cores])
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
    cores = list(rows[0].estimates) if rows else []
    table = [[name, *[f"{core}: {what}" for core in cores for what in ("hot", "loops", "all")]]]
    for row in rows:
        each = [
            e
            for core in cores
            for e in (row.estimates[core].hot, row.estimates[core].loops, row.estimates[core].all)
        ]
        table.append([f"{row.run.engine}, {row.run.label}", *[f"{100 * value:.0f}%" for value in each]])
    return text_table(table)


def hottest(row: Row, model: Estimator, number: int) -> str:
    """Our own run's blocks that take most cycles."""
    half = row.run.option == "float16"
    library = "libsemisparse_torch.so" if half else "_core.*.so"
    functions = Functions(next((own_site(half) / "semisparse").glob(library)))
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
    every = f"default: {' '.join(ENGINES)}; in float16: {' '.join(HALF_ENGINES)}"
    parser.add_argument("--engines", choices=ENGINES, metavar="NAME", nargs="*", help=every)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--layers", default=LAYERS, metavar="CHANNELS@SIDE", **several)
    parser.add_argument("--networks", default=NETWORKS, metavar="MODEL@SIDE", **several)
    parser.add_argument("--imposed", default=SETTINGS, metavar="SETTING", **several)
    parser.add_argument(
        "--hottest", type=int, default=0, metavar="N", help="also list each run's N hottest blocks"
    )
    parser.add_argument("--fresh", action="store_true", help="count again what the cache has")
    parser.add_argument("-o", "--output", type=Path, default=Path("count.json"), help="default: %(default)s")
    options = parser.parse_args()
    half = options.dtype == "float16"
    engines = options.engines or (HALF_ENGINES if half else ENGINES)
    if half and set(engines) - set(HALF_ENGINES):
        parser.error(f"in float16 only {', '.join(HALF_ENGINES)} are counted: the others compute in float32")
    report_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # exporters talk
    lock = Lock()
    versions = prepare(list(engines), half)
    models = estimators(half)
    for model in models:
        model.remember(CACHE)
    lock.share()
    workloads = [Workload(name, options.imposed, half) for name in (*options.layers, *options.networks)]
    runs = {w.name: w.write(CACHE / "count" / w.name, engines) for w in workloads}
    rows: dict[Run, Row] = {}
    errors = []
    for engine, version in versions.items():
        own = [r for each in runs.values() for r in each if r.engine == engine]
        found, error = count(own, version, models, options.fresh)
        rows |= found
        errors += [error] if error else []
    tables = {name: [rows[r] for r in each if r in rows] for name, each in runs.items()}
    show = functools.partial(print, file=report_to, flush=True)
    show("Millions of instructions and of cycles:")
    for name, each in tables.items():
        show("\n" + report(name, each))
    show("\nMultiply-adds per cycle, of what the core can do at most:")
    for name, each in tables.items():
        show("\n" + efficiency(name, each))
    for row in rows.values():
        if options.hottest and row.run.engine == "semisparse":
            show("\n" + hottest(row, models[0], options.hottest))
    results = [as_dict(name, row) for name, each in tables.items() for row in each]
    with replace_atomically(options.output) as file:
        content = {"emulated": EMULATED, "dtype": options.dtype, "llvm": models[0].version, "rows": results}
        file.write(json.dumps(content, indent=1).encode() + b"\n")
    for error in errors:
        print(error, file=sys.stderr)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
