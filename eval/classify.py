"""`semisparse eval classify`: accuracy and latency of classifiers, dense against sparse, in one run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import semisparse as ss
from semisparse.eval import peers
from semisparse.eval.latency import Comparison, compare
from semisparse.eval.result import Result, Row, write
from semisparse.info import collect
from semisparse.masking import column_mask, masked_modules
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
        help="a sparse training run; may be repeated. It is converted, and model.safetensors written into it",
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
        help=f"engines for the dense network, of {','.join(peers.ENGINES)}; those not installed are named",
    )
    result.add_argument(
        "--output-dir", metavar="DIR", help="for eval.json and eval.png (default: the first run's)"
    )
    result.add_argument("--quiet", action="store_true", help="no progress")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    args = parser().parse_args(argv)
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
    for path in write(result, directory):
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
    how far its scores are from those of the trained one. The converted network is saved beside the run.

    Raises:
        ValueError: a model whose classes are not those of the data.
    """
    progress = progress or Progress(enabled=False)
    images = next(iter(data.val))[0]
    example = images[:1].contiguous()
    for run in [*runs, dense] if dense else runs:
        if run.classes != data.classes:
            raise ValueError(
                f"{run.path} was trained on {_some(run.classes)}, but the data has {_some(data.classes)}; "
                "give --data the set it was trained on"
            )

    def accuracy(name: str, model: nn.Module) -> Accuracy:
        with progress.task(f"accuracy of {name}", len(data.val)) as advance:
            return evaluate(model, data.val, advance=advance)

    rows: list[Row] = []
    calls: dict[str, object] = {}
    differences: dict[str, float] = {}
    missing: dict[str, str] = {}

    def add(network: str, engine: str, removed: float, found: Accuracy, call) -> None:
        row = Row(network, engine, removed > 0, removed, found.top1, found.top5)
        rows.append(row)
        calls[row.key] = call

    def add_converted(network: str, removed: float, model: nn.Module) -> None:
        add(network, "semisparse", removed, accuracy(f"{network}, converted", model), lambda: model(example))

    if dense:
        found = accuracy(f"{dense.name}, torch", dense.model)
        ready, missing = peers.build(engines, dense.model, example, threads)
        for engine, call in ready.items():
            add(dense.name, engine, 0.0, found, call)
        fast = ss.convert(dense.model, example)
        differences[dense.name] = _difference(fast, dense.model, images)
        add_converted(dense.name, 0.0, fast)
    for run in runs:
        fast = ss.convert(run.model, example)
        differences[run.name] = _difference(fast, run.model, images)
        ss.save(fast, run.path.parent / "model.safetensors")
        add_converted(run.name, _removed(run.model), fast)
    for file in files:
        add_converted(Path(file).stem, 0.0, ss.load(file))

    with progress.task(f"latency, {rounds} interleaved rounds", 1):
        comparison = compare(calls, threads=threads, rounds=rounds)
    _fill_latency(rows, comparison)
    conditions = {
        "data": data.name,
        "size": data.size,
        "images": len(data.val),
        "batch": 1,
        "threads": threads,
    }
    masks = (
        {name: column_mask(module) for name, module in masked_modules(runs[0].model).items()} if runs else {}
    )
    return Result(rows, differences, missing, masks, conditions, collect())


def _dense_run(path: str | None, runs: Sequence[Run]) -> Run | None:
    if path:
        return load_run(path)
    started_from = [run.options.get("checkpoint") for run in runs]
    found = next((p for p in started_from if p and Path(p).exists()), None)
    return load_run(found) if found else None


def _some(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}...)"


def _removed(model: nn.Module) -> float:
    """Average fraction of output pixels removed over the masked layers; 0 without masks."""
    ratios = [1 - column_mask(module).float().mean().item() for module in masked_modules(model).values()]
    return sum(ratios) / len(ratios) if ratios else 0.0


@torch.inference_mode()
def _difference(converted: nn.Module, trained: nn.Module, images: torch.Tensor) -> float:
    expected = trained(images)
    return ((converted(images) - expected).abs().max() / expected.abs().max()).item()


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
