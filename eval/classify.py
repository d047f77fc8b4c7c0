"""`semisparse eval classify`: accuracy and latency of classifiers, dense against sparse, in one run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import semisparse as ss
from semisparse.converted import ConvertedModel
from semisparse.eval.peers import ENGINES, Candidate, race
from semisparse.eval.result import Result, Row, write
from semisparse.info import collect
from semisparse.latency import Comparison
from semisparse.train.data import ClassificationData, load_data
from semisparse.train.engine import Accuracy, evaluate
from semisparse.train.progress import Progress
from semisparse.train.run import Run, load_run


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="semisparse eval classify",
        description="Accuracy and latency, dense against sparse: a table, eval.json and eval.png.",
    )
    result.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="DIR",
        help="a training run, converted for the comparison; may be repeated",
    )
    result.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE",
        help="a converted model (.safetensors); may be repeated",
    )
    result.add_argument(
        "--dense", metavar="DIR", help="the dense training run (default: the one that --run started from)"
    )
    result.add_argument("--data", help="as for training (default: the run's)")
    result.add_argument("--data-dir", metavar="DIR", help="where downloads are kept")
    result.add_argument("--size", type=int, metavar="PIXELS", help="side of the input (default: the run's)")
    result.add_argument(
        "--batch-size", type=int, default=64, help="for accuracy; latency is always measured at 1"
    )
    result.add_argument("--workers", type=int, default=4, help="threads or processes that decode pictures")
    result.add_argument("--threads", type=int, default=1, help="for latency, the same for every engine")
    result.add_argument("--rounds", type=int, default=30, help="interleaved measurements of each candidate")
    result.add_argument(
        "--peers",
        default="torch,onnxruntime",
        metavar="NAMES",
        help=f"engines for the dense network, of {','.join(ENGINES)}; those not installed are named",
    )
    result.add_argument(
        "--output-dir", metavar="DIR", help="for eval.json and eval.png (default: the first run's)"
    )
    result.add_argument("--quiet", action="store_true", help="no progress")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    args = parser().parse_args(argv)
    for name in ("threads", "rounds", "batch_size"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected at least 1")
    runs = [load_run(path) for path in args.run]
    if not runs and not args.model:
        raise ValueError("nothing to evaluate: give --run DIR or --model FILE.safetensors")
    dense = _dense_run(args.dense, runs)
    origin = (runs + [dense] if dense else runs)[:1]
    if not args.data and not origin:
        raise ValueError("--data is needed: a model file alone does not say on what it was trained")
    options = origin[0].options if origin else {}
    with Progress(enabled=not args.quiet) as progress:
        data = load_data(
            args.data or options["data"],
            size=args.size or options.get("size"),
            batch_size=args.batch_size,
            workers=args.workers,
            data_dir=args.data_dir or options.get("data_dir"),
            cache=options.get("cache", True),
        )
        result = measure(
            runs,
            args.model,
            dense,
            data,
            threads=args.threads,
            rounds=args.rounds,
            engines=[name for name in args.peers.split(",") if name],
            progress=progress,
        )
    print(result.table())
    for name, difference in result.differences.items():
        print(f"{name}: converted and trained network agree to {difference:.1e} of the largest score")
    for name, reason in result.missing_engines.items():
        print(f"not compared with {name}: {reason}")
    directory = Path(args.output_dir or (args.run or [Path(args.model[0]).parent])[0])
    for path in (*write(result, directory), *_draw_convergence(runs, directory)):
        print(f"wrote {path}")


def measure(
    runs: Sequence[Run],
    files: Sequence[str],
    dense: Run | None,
    data: ClassificationData,
    *,
    threads: int = 1,
    rounds: int = 30,
    engines: Sequence[str] = ("torch", "onnxruntime"),
    progress: Progress | None = None,
) -> Result:
    """Evaluate sparse runs and model files against the dense run.

    The accuracy of a run is that of the *converted* network, which is also what is timed; `differences` says
    how far its scores are from those of the trained one.

    Raises:
        ValueError: a model whose classes are not those of the data.
    """
    trained = [dense, *runs] if dense else list(runs)
    for run in trained:
        if run.classes != data.classes:
            raise ValueError(
                f"{run.path} was trained on {_some(run.classes)}, but the data has {_some(data.classes)}; "
                "give --data the set it was trained on"
            )
    names = [run.name for run in trained] + [Path(file).stem for file in files]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two of the networks are called {name!r}; rename one directory or file")
    progress = progress or Progress(enabled=False)
    evaluation = _Evaluation(data, progress)
    if dense:
        evaluation.add_peers(dense, engines)
    for run in trained:
        evaluation.add_run(run)
    for file in files:
        evaluation.add_network(Path(file).stem, ss.load(file))
    progress.print(f"latency: {rounds} interleaved rounds of {len(evaluation.rows)} candidates")
    found = race(evaluation.candidates, evaluation.example, threads=threads, rounds=rounds)
    missing = {row.engine: found.missing[row.key] for row in evaluation.rows if row.key in found.missing}
    if "semisparse" in missing:
        raise RuntimeError(f"semisparse could not be timed: {missing['semisparse']}")
    rows = [row for row in evaluation.rows if row.key not in found.missing]
    _fill_latency(rows, found.comparison)
    conditions = {
        "model": trained[0].options["model"] if trained else names[0],
        "data": data.name,
        "size": data.size,
        "batch": 1,
        "threads": threads,
    }
    return Result(rows, evaluation.differences, missing, evaluation.masks, conditions, collect())


class _Evaluation:
    """Collects rows (accuracy measured, latency not yet) and what to time for them."""

    def __init__(self, data: ClassificationData, progress: Progress):
        self.data, self.progress = data, progress
        self.images = next(iter(data.val))[0].contiguous()
        self.example = self.images[:1].clone()
        self.rows: list[Row] = []
        self.candidates: list[Candidate] = []
        self.differences: dict[str, float] = {}
        self.masks: dict[str, torch.Tensor] = {}

    def add_peers(self, dense: Run, engines: Sequence[str]) -> None:
        """The dense network in other engines; its accuracy is measured once, in torch."""
        found = self._accuracy(dense.name, dense.model)
        for engine in engines:
            self._add(Row(dense.name, engine, 0.0, found.top1, found.top5), dense.model)

    def add_run(self, run: Run) -> None:
        """Convert a run, compare its scores with the trained network's, add it."""
        fast = ss.convert(run.model, self.example)
        with torch.inference_mode():
            expected = run.model(self.images)
            error = (fast(self.images) - expected).abs().max() / expected.abs().max()
        self.differences[run.name] = error.item()
        self.add_network(run.name, fast)

    def add_network(self, name: str, network: ConvertedModel) -> None:
        found = self._accuracy(f"{name}, converted", network)
        work = ss.statistics(network)
        removed = 1 - work.macs_kept / work.macs_dense if work.macs_dense else 0.0
        self._add(Row(name, "semisparse", removed, found.top1, found.top5), network)
        self.masks = self.masks or network.column_masks()

    def _add(self, row: Row, model: nn.Module) -> None:
        self.rows.append(row)
        self.candidates.append(Candidate(row.key, row.engine, model))

    def _accuracy(self, name: str, model: nn.Module) -> Accuracy:
        with self.progress.task(f"accuracy of {name}", len(self.data.val)) as advance:
            return evaluate(model, self.data.val, advance=advance)


def _draw_convergence(runs: Sequence[Run], directory: Path) -> list[Path]:
    """A picture of each run that ADMM led to its structure."""
    from semisparse.eval import convergence

    rows = {run.name: convergence.updates(run.history) for run in runs}
    return [
        convergence.draw(directory / f"convergence-{name}.png", name, found)
        for name, found in rows.items()
        if found
    ]


def _dense_run(path: str | None, runs: Sequence[Run]) -> Run | None:
    if path:
        return load_run(path)
    started_from = [run.options.get("checkpoint") for run in runs]
    found = next((p for p in started_from if p and Path(p).exists()), None)
    return load_run(found) if found else None


def _some(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}...)"


def _fill_latency(rows: Sequence[Row], comparison: Comparison) -> None:
    torch_row = next((row for row in rows if row.engine == "torch"), None)
    own_dense = next((row for row in rows if row.engine == "semisparse" and not row.sparse), None)
    for row in rows:
        latency = comparison.latency[row.key]
        row.latency, row.p10, row.p90 = latency.median, latency.p10, latency.p90
        if torch_row:
            row.speedup_torch = comparison.speedup(row.key, torch_row.key)
        if own_dense and row.engine == "semisparse":
            row.speedup_dense = comparison.speedup(row.key, own_dense.key)


if __name__ == "__main__":
    main()
