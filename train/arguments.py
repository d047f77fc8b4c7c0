"""Command-line options of the training entry points; names follow torchvision's reference scripts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from .data.augment import AUGMENTATIONS
from .optimize import OPTIMIZERS, SCHEDULES


class Formatter(argparse.HelpFormatter):
    """Shows the defaults that say something: not None, not False."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or isinstance(action.default, bool) or action.default is argparse.SUPPRESS:
            return action.help or ""
        return f"{action.help} (default: %(default)s)" if action.help else "default: %(default)s"


def add_recipe(group: argparse._ArgumentGroup) -> None:
    """The options of every training that name what becomes sparse; `check` belongs to them."""
    group.add_argument(
        "--recipe", metavar="YAML", help="sparsity to train: a file, or a shipped one (columns20)"
    )
    group.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the recipe's _default, e.g. columns.granularity=run16",
    )


def check(args: argparse.Namespace, checks: Iterable[tuple[str, bool, str]]) -> None:
    """Raise ValueError for the first of `checks`, (option, whether its value is good, what is expected), that
    fails, and for --set without --recipe."""
    for name, good, expected in checks:
        if not good:
            raise ValueError(f"{name} is {getattr(args, name[2:].replace('-', '_'))}, expected {expected}")
    if args.set and not args.recipe:
        raise ValueError("--set changes a recipe: name one with --recipe, such as columns20")


def classify_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="semisparse train classify",
        formatter_class=Formatter,
        description="Train an image classifier: dense, or with the sparsity that a recipe arranges.",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        "--data-path",
        default="digits",
        metavar="DATA",
        help="digits (needs no files), cifar10, imagenette, or a zip or directory in ImageFolder layout",
    )
    data.add_argument(
        "--download", action="store_true", help="download cifar10 or imagenette if it is not there"
    )
    data.add_argument(
        "--data-dir", metavar="DIR", help="where downloads are kept (default: the user's cache directory)"
    )
    data.add_argument(
        "--no-cache",
        dest="cache",
        action="store_false",
        help="do not keep decoded pictures in the user's cache directory",
    )
    data.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of the square input (default: 224; small sets 64)"
    )
    data.add_argument("--augmentation", choices=AUGMENTATIONS, help="default: by data set")
    data.add_argument("-b", "--batch-size", type=int, default=64, help="pictures per step and process")
    data.add_argument(
        "-j", "--workers", type=int, default=4, help="threads or processes that decode pictures"
    )

    model = parser.add_argument_group("model")
    model.add_argument("--model", default="resnet18", help="a torchvision classifier")
    model.add_argument(
        "--weights", metavar="NAME", help="torchvision weights to start from, e.g. DEFAULT (downloads them)"
    )
    model.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="start from the weights of a checkpoint, and from its column masks where they are what --recipe "
        "asks for",
    )
    add_recipe(model)
    model.add_argument(
        "--held-out",
        type=int,
        metavar="N",
        help="training pictures kept aside to compare masks on, for criterion held_out only "
        "(default: 512, and a tenth of smaller sets)",
    )
    model.add_argument(
        "--bn-batches",
        type=int,
        metavar="N",
        help="after the last step, re-estimate the BatchNorm statistics on N training batches (default: 0; "
        "32 if fewer steps than that come after the recipe's last removal)",
    )

    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=int, help="default: 90; digits 8")
    training.add_argument("--opt", choices=OPTIMIZERS, default="sgd")
    training.add_argument("--lr", type=float, help="default: 0.05; 0.01 from trained weights")
    training.add_argument("--momentum", type=float, default=0.9)
    training.add_argument("--wd", "--weight-decay", dest="weight_decay", type=float, default=1e-4)
    training.add_argument(
        "--norm-weight-decay", type=float, metavar="WD", help="weight decay of norm parameters and biases"
    )
    training.add_argument("--lr-scheduler", choices=SCHEDULES, default="cosine", help="applied at every step")
    training.add_argument("--lr-warmup-epochs", type=float, default=0, metavar="EPOCHS")
    training.add_argument("--label-smoothing", type=float, default=0.0)
    training.add_argument("--clip-grad-norm", type=float, metavar="NORM")
    training.add_argument(
        "--model-ema", action="store_true", help="evaluate and keep an average of the weights"
    )
    training.add_argument("--model-ema-decay", type=float, default=0.998)
    training.add_argument(
        "--distill", metavar="FILE", help="learn from the outputs of this (dense) checkpoint too"
    )
    training.add_argument("--distill-weight", type=float, default=2.0, help="the labels have 1")
    training.add_argument("--distill-temperature", type=float, default=2.0, help="softens both outputs")

    run = parser.add_argument_group("run")
    run.add_argument("--output-dir", default="runs/classify", metavar="DIR")
    run.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="FILE",
        help="continue a run exactly; without FILE from the output directory, if there is a checkpoint",
    )
    run.add_argument(
        "--test-only",
        action="store_true",
        help="evaluate --checkpoint or --resume, its masks applied, and stop",
    )
    run.add_argument("--device", default="cpu", help="cpu or cuda")
    run.add_argument("--amp", action="store_true", help="mixed precision (bfloat16 where the device has it)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument(
        "--print-freq", type=int, default=0, metavar="STEPS", help="also print a line every so many steps"
    )
    run.add_argument("--quiet", action="store_true")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parsed options. Raises ValueError (not SystemExit) for values that cannot work."""
    args = classify_parser().parse_args(argv)
    checks = (
        ("--epochs", args.epochs is None or args.epochs >= 0, "0 or more"),
        ("--batch-size", args.batch_size >= 1, "1 or more"),
        ("--lr", args.lr is None or args.lr > 0, "more than 0"),
        ("--workers", args.workers >= 0, "0 or more"),
        ("--label-smoothing", 0 <= args.label_smoothing < 1, "in [0, 1)"),
        ("--model-ema-decay", 0 <= args.model_ema_decay < 1, "in [0, 1)"),
        ("--bn-batches", args.bn_batches is None or args.bn_batches >= 0, "0 or more"),
        ("--held-out", args.held_out is None or args.held_out >= 1, "1 or more"),
        ("--lr-warmup-epochs", args.lr_warmup_epochs >= 0, "0 or more"),
    )
    check(args, checks)
    if args.epochs is None:
        args.epochs = 8 if args.data.lower() == "digits" else 90
    if args.lr is None:
        args.lr = 0.01 if args.weights or args.checkpoint else 0.05
    if args.weights and args.checkpoint:
        raise ValueError("--weights and --checkpoint both name the starting weights; give one of them")
    return args
