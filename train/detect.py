"""`semisparse train detect`: train a YOLO detector, dense or sparse, through Ultralytics."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zipfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from semisparse._files import replace_atomically

from .arguments import Formatter, add_recipe, check
from .data.detection import open_detection_data

# Ultralytics warms up with a learning rate of 0.1 for biases, BatchNorm's included, which suits SGD. Steps of
# these optimisers are as large as their learning rate: a trained network is shaken (`auto` sets 0 by itself).
_ADAPTIVE = ("adam", "nadam", "radam")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="semisparse train detect",
        formatter_class=Formatter,
        description="Train a YOLO detector: dense, or with the sparsity that a recipe arranges.",
    )
    data = result.add_argument_group("data")
    data.add_argument(
        "--data",
        default="shapes",
        help="shapes (drawn here), a data.yaml in YOLO layout, or a directory or zip that holds one",
    )
    data.add_argument(
        "--data-dir", metavar="DIR", help="where drawn or unpacked data is kept (default: the user's cache)"
    )
    data.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of the square input (default: 640; shapes 96)"
    )
    data.add_argument("-b", "--batch-size", type=int, default=16, help="pictures per step")
    data.add_argument("-j", "--workers", type=int, default=4, help="processes that load pictures, on a GPU")

    model = result.add_argument_group("model")
    model.add_argument("--model", default="yolov8n.yaml", help="a network (.yaml) or trained weights (.pt)")
    add_recipe(model)
    model.add_argument(
        "--distill", metavar="FILE", help="learn from the outputs of this (dense) checkpoint or run too"
    )

    training = result.add_argument_group("training")
    training.add_argument("--epochs", type=int, help="default: 100; shapes 20")
    training.add_argument(
        "--opt", default="auto", metavar="NAME", help="SGD, AdamW, ...; auto chooses --lr too"
    )
    training.add_argument("--lr", type=float, help="initial learning rate")
    training.add_argument(
        "--patience", type=int, help="stop after so many epochs at full sparsity without gain"
    )
    training.add_argument(
        "--yolo",
        nargs="+",
        default=[],
        metavar="OPTION=VALUE",
        help="any other option of Ultralytics' training, e.g. mosaic=0.5 cos_lr=True; if the recipe removes "
        "columns, options that move pictures on the canvas are 0 unless named here",
    )

    run = result.add_argument_group("run")
    run.add_argument("--output-dir", default="runs/detect", metavar="DIR")
    run.add_argument(
        "--resume", action="store_true", help="continue the run in the output directory, if there is one"
    )
    run.add_argument(
        "--export-size",
        type=int,
        nargs="+",
        default=[],
        metavar="PIXELS",
        help="sizes that model.safetensors holds beside the trained one",
    )
    run.add_argument("--device", default="cpu", help="cpu, or GPUs: 0, or 0,1")
    run.add_argument(
        "--amp", action="store_true", help="mixed precision; on a CPU bfloat16, with a recipe only"
    )
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--quiet", action="store_true")
    return result


def parse(argv: Sequence[str] | None) -> Namespace:
    """Parsed options. Raises ValueError (not SystemExit) for values that cannot work."""
    args = parser().parse_args(argv)
    drawn = args.data.lower() == "shapes"
    args.size = args.size if args.size is not None else 96 if drawn else 640
    args.epochs = args.epochs if args.epochs is not None else 20 if drawn else 100
    checks = (
        ("--epochs", args.epochs >= 1, "at least 1"),
        ("--batch-size", args.batch_size >= 1, "at least 1"),
        ("--workers", args.workers >= 0, "0 or more"),
        ("--lr", args.lr is None or args.lr > 0, "more than 0"),
        ("--size", args.size >= 32, "at least 32"),
    )
    check(args, checks)
    if args.size % 32:
        raise ValueError(f"--size is {args.size}, expected a multiple of 32: masks belong to the exact size")
    args.yolo = dict(_option(item) for item in args.yolo)
    return args


def _option(item: str) -> tuple[str, object]:
    import yaml

    name, equals, value = item.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--yolo {item!r}: expected OPTION=VALUE, such as mosaic=0.5")
    return name, yaml.safe_load(value)


def main(argv: Sequence[str] | None = None) -> dict:
    """Run the command; returns the summary that it also writes to `summary.json` in the output directory.

    The directory gets Ultralytics' own files (weights/best.pt, weights/last.pt, results.csv, ...), data.yaml,
    recipe.yaml and model.safetensors, the network for deployment.
    """
    args = parse(argv)
    directory = Path(args.output_dir).resolve()
    recipe = _recipe(args)
    last = directory / "weights" / "last.pt"
    resuming = args.resume and last.is_file()
    data = open_detection_data(args.data, directory, data_dir=args.data_dir)

    from .integrations import ultralytics as integration

    options = _options(args, data, directory)
    if args.quiet:
        integration.silence()
    finished = False
    if resuming:
        epoch, stored = integration.progress(last)
        if recipe is None and stored is not None:
            raise ValueError(
                "the run to resume trains with a recipe; name it with --recipe "
                f"(a copy lies in {directory / 'recipe.yaml'})"
            )
        finished = epoch is None or epoch >= args.epochs
        options["resume"] = True
    if recipe is not None:
        options |= {"trainer": integration.SparseDetectionTrainer, "recipe": recipe}
        recipe.save(directory / "recipe.yaml")
    if finished:  # all but the evaluation
        metrics = integration.evaluate(integration.open_yolo(directory), data, args.size, args.batch_size)
    else:
        metrics = integration.train(integration.open_yolo(last if resuming else args.model), options)
    summary = {
        "model": args.model,
        "data": args.data,
        "size": args.size,
        "epochs": args.epochs,
        "recipe": args.recipe,
        "map50": 100 * float(metrics.box.map50),
        "map": 100 * float(metrics.box.map),
    }
    with replace_atomically(directory / "summary.json") as file:
        file.write(json.dumps(summary, indent=1).encode())
    import semisparse as ss

    sizes = [args.size, *(size for size in args.export_size if size != args.size)]
    ss.save(integration.convert(directory, sizes), directory / "model.safetensors")
    if not args.quiet:
        print(f"{directory}: mAP50 {summary['map50']:.2f}%  mAP50-95 {summary['map']:.2f}%", file=sys.stderr)
    return summary


def is_detector(run: str | os.PathLike) -> bool:
    """Whether a run directory, or a checkpoint, is one of Ultralytics. Nothing is unpickled."""
    path = Path(run)
    if path.is_dir():
        return (path / "weights").is_dir()
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return any(b"ultralytics" in archive.read(name) for name in pickles)


def _recipe(args: Namespace):
    if not args.recipe:
        return None
    from semisparse.recipe import Recipe

    return Recipe.load(args.recipe).override(*args.set)


def _options(args: Namespace, data: Path, directory: Path) -> dict:
    options = {
        "data": str(data),
        "imgsz": args.size,
        "epochs": args.epochs,
        "batch": args.batch_size,
        "workers": args.workers,
        "optimizer": args.opt,
        "device": args.device,
        "amp": args.amp,
        "seed": args.seed,
        "project": str(directory.parent),
        "name": directory.name,
        "exist_ok": True,
        "plots": False,
    }
    optional = {"lr0": args.lr, "patience": args.patience, "distill_model": args.distill}
    options |= {name: value for name, value in optional.items() if value is not None}
    if taken := sorted(set(options) & set(args.yolo)):
        raise ValueError(f"--yolo {taken[0]}: this has an option of its own; see --help")
    if args.opt.lower().startswith(_ADAPTIVE) and "warmup_bias_lr" not in args.yolo:
        options["warmup_bias_lr"] = 0.0
    return options | args.yolo


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
