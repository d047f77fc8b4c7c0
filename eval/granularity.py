"""`semisparse granularity`: the column granularities that this machine executes best, written into a recipe.

What `granularity: auto` does when training begins, by itself: run it on the machine that is deployed to, and
train with the recipe that it writes on another one.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from semisparse._table import text_table
from semisparse.eval.models import default_size, load_model
from semisparse.latency import random_input
from semisparse.recipe import AUTO, GRANULARITIES, Recipe
from semisparse.train.columns.automatic import DENSE, Choice, fix_granularity
from semisparse.train.run import load_run


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="semisparse granularity",
        description="Time every layer with columns removed in units of each size, on one thread, and write "
        "the best for this machine into a recipe.",
    )
    result.add_argument(
        "--model",
        default="resnet18",
        help="a torchvision classifier or a YOLO detector (yolov8n.yaml) with random weights, "
        "module:function that returns a model, or the directory of a training run",
    )
    result.add_argument("--size", type=int, metavar="PIXELS", help="side of the image (default: the usual)")
    result.add_argument("--recipe", default="columns30", metavar="YAML", help="default: %(default)s")
    result.add_argument(
        "--set", nargs="+", default=[], metavar="FIELD=VALUE", help="as in semisparse train classify"
    )
    result.add_argument("--rounds", type=int, default=15)
    result.add_argument("-o", "--output", type=Path, metavar="YAML", help="write the recipe to this file")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and write the recipe if asked to."""
    args = parser().parse_args(argv)
    if args.rounds < 1:
        raise ValueError(f"--rounds is {args.rounds}, expected at least 1")
    recipe = Recipe.load(args.recipe).override(*args.set, f"columns.granularity={AUTO}")
    model, size = _model(args.model, args.size)
    if args.model.endswith((".yaml", ".yml")):
        from semisparse.train.integrations.ultralytics import skips_for_detection

        recipe = skips_for_detection(recipe, model)
    example = random_input(1, 3, size, size)
    recipe, choices = fix_granularity(model, recipe, example, rounds=args.rounds)
    if not choices:
        raise ValueError(
            f"--recipe {args.recipe} removes no columns of {args.model}, or names all granularities itself; "
            "add --set columns.ratio=0.3"
        )
    print(f"{args.model} at {size} px, batch 1, 1 thread, {next(iter(choices.values())).machine}; ms:")
    print(table(choices))
    if args.output:
        recipe.save(args.output)
        print(f"wrote {args.output}")


def table(choices: Mapping[str, Choice]) -> str:
    """A line for each layer: what was measured, what is chosen, and how many times faster than dense it is;
    `none` if all columns stay. A granularity that cannot meet the ratio on a map has no time."""
    labels = (DENSE, *GRANULARITIES)
    rows = [["layer", "chosen", *labels, "x"]]
    for name, choice in choices.items():
        times = [f"{choice.ms[label]:.3f}" if label in choice.ms else "-" for label in labels]
        rows.append([name, choice.granularity or "none", *times, f"{choice.gain:.2f}"])
    return text_table(rows, left=2)


def _model(model: str, size: int | None) -> tuple[nn.Module, int]:
    if not Path(model).is_dir():
        size = size or default_size(model)
        if size is None:
            raise ValueError(f"{model} is converted: its columns were removed in training")
        return load_model(model, size)[0], size
    run = load_run(model)
    trained = run.options["size"]
    if size not in (None, trained):
        raise ValueError(f"{model} was trained at {trained} pixels, and --size is {size}")
    return run.model, trained


if __name__ == "__main__":
    main()
