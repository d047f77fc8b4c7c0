"""The `semisparse` command.

Everything heavy is imported when a command runs, so that `semisparse --help` is quick and works with the core
dependencies and typer alone. User mistakes end in one line and exit code 2; `--debug` shows the traceback.
"""

import importlib.metadata
import os
import re
import sys
from pathlib import Path
from typing import Annotated

# Modules whose distribution has another name; used to find the extra that brings them.
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
_MODEL_HELP = (
    "Converted model (.safetensors), training run directory, exported program (.pt2), module:function that "
    "returns a model, or a torchvision classifier with random weights."
)
_PASS_THROUGH = {"ignore_unknown_options": True, "allow_extra_args": True}


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script; always ends in SystemExit."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [arg for arg in argv if arg != "--debug"]
    try:
        sys.exit(_app()(argv, prog_name="semisparse"))
    except ModuleNotFoundError as error:
        _fail(_missing(error), error, debug)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        _fail(str(error) or type(error).__name__, error, debug)
    except KeyboardInterrupt as error:
        _fail("interrupted", error, debug, code=130)


def _app():
    import typer

    app = typer.Typer(
        help="Sparse CNN inference on CPUs: train for it, convert, measure.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    train = typer.Typer(help="Train sparse networks.", no_args_is_help=True)
    evaluate = typer.Typer(help="Measure accuracy and latency, dense against sparse.", no_args_is_help=True)
    app.add_typer(train, name="train")
    app.add_typer(evaluate, name="eval")

    @app.callback()
    def common(
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    ) -> None:
        """Sparse CNN inference on CPUs: train for it, convert, measure."""

    @app.command()
    def info(
        model: Annotated[
            Path | None, typer.Argument(help="Converted model (.safetensors) or training run directory.")
        ] = None,
    ) -> None:
        """Processor, kernels and versions, to paste into a bug report; with MODEL, its layers instead."""
        from semisparse.info import collect

        if model is not None:
            typer.echo(_statistics(model))
            return
        fields = collect()
        width = max(map(len, fields))
        for name, value in fields.items():
            typer.echo(f"{name:<{width}}  {value}")

    @app.command()
    def convert(
        run: Annotated[Path, typer.Argument(help="Training run directory, or its checkpoint.pt.")],
        output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path(
            "model.safetensors"
        ),
        strict: Annotated[
            bool, typer.Option("--strict", help="Fail if a sparse layer would run densely, and say why.")
        ] = False,
        size: Annotated[
            list[int] | None,
            typer.Option(
                help="Detectors: pixels of the square input (default: as trained); may be repeated."
            ),
        ] = None,
    ) -> None:
        """Convert a trained checkpoint to a model file for deployment."""
        import semisparse as ss
        from semisparse.train.detect import is_detector

        if is_detector(run):
            from semisparse.train.integrations import ultralytics as integration

            fast = integration.convert(run, size, strict=strict)
        else:
            from semisparse.train.run import load_run

            if size:
                raise ValueError("--size is for detectors; a classifier is converted at its training size")
            trained = load_run(run)
            fast = ss.convert(trained.model, trained.example(), strict=strict)
        ss.save(fast, output)
        typer.echo(ss.statistics(fast))
        typer.echo(f"wrote {output}")

    @app.command(context_settings=_PASS_THROUGH, add_help_option=False)
    def bench(context: typer.Context) -> None:
        """Time converted models against each other and other engines (--help lists its options)."""
        from semisparse.eval.bench import main as run

        run(context.args)

    @app.command(context_settings=_PASS_THROUGH, add_help_option=False)
    def plan(context: typer.Context) -> None:
        """How fast would a network be at a given sparsity? Timed, before training (--help: options)."""
        from semisparse.eval.network import main as run

        run(context.args)

    @app.command(context_settings=_PASS_THROUGH, add_help_option=False)
    def granularity(context: typer.Context) -> None:
        """Which units of columns does this machine skip best? Into a recipe (--help: options)."""
        from semisparse.eval.granularity import main as run

        run(context.args)

    @app.command()
    def explain(
        model: Annotated[str, typer.Argument(help=_MODEL_HELP)],
        imposed: Annotated[
            str, typer.Option(help="Pretended sparsity of a model that is not converted; see plan --help.")
        ] = "dense",
        size: Annotated[int | None, typer.Option(help="Side of the image in pixels.")] = None,
        threads: Annotated[int, typer.Option(min=1)] = 1,
        rounds: Annotated[int, typer.Option(min=1, help="Timed passes through the network.")] = 15,
        json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table here.")] = None,
    ) -> None:
        """Where the time goes, layer by layer: algorithm, dense against sparse, and why not faster."""
        import json

        import semisparse as ss
        from semisparse._files import replace_atomically
        from semisparse._table import print_table
        from semisparse.eval.models import converted_model
        from semisparse.explain import TEXT_COLUMNS

        network, example = converted_model(model, size, imposed)
        found = ss.explain(network, example, threads=threads, rounds=rounds)
        print_table(found.rows(), left=TEXT_COLUMNS)
        typer.echo(found.summary())
        if json_file is not None:
            with replace_atomically(json_file) as file:
                file.write(json.dumps(found.as_dict(), indent=1).encode())

    @app.command()
    def tune(
        model: Annotated[Path, typer.Argument(help="Converted model (.safetensors).")],
        size: Annotated[
            int | None, typer.Option(help="Side of the image in pixels, where it is free.")
        ] = None,
        threads: Annotated[int, typer.Option(min=1)] = 1,
        rounds: Annotated[int, typer.Option(min=1, help="Timed passes with each algorithm.")] = 15,
        again: Annotated[
            bool, typer.Option("--again", help="Even if this machine has been tuned for.")
        ] = False,
    ) -> None:
        """Measure which algorithm is fastest for each layer on this machine; load() applies the result."""
        from semisparse._table import print_table
        from semisparse.tuning import tune_file
        from semisparse.tuning_file import TEXT_COLUMNS, tuning_path

        found, measured = tune_file(
            model, size, threads=threads, rounds=rounds, again=again, progress=typer.echo
        )
        print_table(found.rows(), left=TEXT_COLUMNS)
        typer.echo(found.summary())
        typer.echo(f"{'wrote' if measured else 'already in'} {tuning_path(model)}")

    @train.command("classify", context_settings=_PASS_THROUGH, add_help_option=False)
    def train_classify(context: typer.Context) -> None:
        """Train an image classifier, dense or sparse (--help lists its options)."""
        from semisparse.train.classify import main as run

        run(context.args)

    @train.command("detect", context_settings=_PASS_THROUGH, add_help_option=False)
    def train_detect(context: typer.Context) -> None:
        """Train a YOLO detector through Ultralytics, dense or sparse (--help lists its options)."""
        from semisparse.train.detect import main as run

        run(context.args)

    @evaluate.command("peers", context_settings=_PASS_THROUGH, add_help_option=False)
    def eval_peers(context: typer.Context) -> None:
        """Time a dense model on every installed engine and say which wins (--help lists its options)."""
        from semisparse.eval.peers.main import main as run

        run(context.args)

    @evaluate.command("classify", context_settings=_PASS_THROUGH, add_help_option=False)
    def eval_classify(context: typer.Context) -> None:
        """Compare classifiers in accuracy and latency (--help lists its options)."""
        from semisparse.eval.classify import main as run

        run(context.args)

    @evaluate.command("detect", context_settings=_PASS_THROUGH, add_help_option=False)
    def eval_detect(context: typer.Context) -> None:
        """Compare YOLO detectors in mAP and latency (--help lists its options)."""
        from semisparse.eval.detect import main as run

        run(context.args)

    return app


def _statistics(model: Path):
    import semisparse as ss

    if model.suffix == ".safetensors":
        return ss.statistics(ss.load(model))
    from semisparse.train.run import load_run

    run = load_run(model)
    return ss.statistics(run.model, run.example(), run.recipe)


def _fail(message: str, error: BaseException, debug: bool, code: int = 2) -> None:
    if debug:
        raise error
    text = f"error: {message}"
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[31m{text}\033[0m" if colour else text, file=sys.stderr)
    sys.exit(code)


def _missing(error: ModuleNotFoundError) -> str:
    """Name the pip extra that brings a missing module, from the package's own metadata."""
    module = (error.name or "").split(".")[0]
    wanted = _DISTRIBUTIONS.get(module, module).lower()
    try:
        requirements = importlib.metadata.requires("semisparse") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", requirement)
        if name == wanted.replace("_", "-") and extra:
            return f"{module} is not installed: pip install 'semisparse[{extra[1]}]'"
    return f"{error}: pip install {_DISTRIBUTIONS.get(module, module)}"


if __name__ == "__main__":
    main()
