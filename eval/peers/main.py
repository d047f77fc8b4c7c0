"""`python -m semisparse.eval.peers`: one model on every engine, and which of them wins."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from semisparse._files import replace_atomically
from semisparse._table import text_table
from semisparse.eval.models import default_size, load_model
from semisparse.eval.peers.candidates import Candidate
from semisparse.eval.peers.engines import ENGINES, OWN
from semisparse.eval.peers.race import Race, race
from semisparse.images import random_image
from semisparse.info import collect
from semisparse.latency import random_input


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="semisparse eval peers",
        description="Time a model on every engine that is installed, each in its own process, interleaved.",
    )
    result.add_argument(
        "--model",
        default="resnet18",
        help="a torchvision classifier (random weights), module:function that returns a model, an exported "
        "program (.pt2), or a converted model (.safetensors), which other engines run without its sparsity",
    )
    result.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of the image (default: the usual one)"
    )
    result.add_argument("--engines", default=",".join(ENGINES), metavar="NAMES", help="default: %(default)s")
    result.add_argument("--threads", type=int, nargs="+", default=[1])
    result.add_argument("--rounds", type=int, default=20, help="interleaved measurements of each engine")
    result.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    args = parser().parse_args(argv)
    size = args.size or default_size(args.model)
    model, plain = load_model(args.model, size)
    example = random_image(model, size) if size is None else random_input(1, 3, size, size)
    names = [name for name in args.engines.split(",") if name]
    candidates = [Candidate(name, name, model if name in OWN else plain) for name in names]
    results = []
    for threads in args.threads:
        found = race(candidates, example, threads=threads, rounds=args.rounds, progress=show_progress)
        print(f"\n{args.model} at {example.shape[-1]} px, batch 1, float32, {threads} thread(s):")
        print(report(found), flush=True)
        results.append({"model": args.model, "input": list(example.shape)} | found.as_dict())
    if args.json:
        with replace_atomically(args.json) as file:
            file.write(json.dumps({"machine": collect(), "races": results}, indent=1).encode())
        print(f"wrote {args.json}")


def report(found: Race) -> str:
    """Table by latency, the winner, and what did not run."""
    order = sorted(found.comparison.latency, key=lambda label: found.comparison.latency[label].median)
    lines = []
    if order:
        best = order[0]
        rows = [["", "median ms", "p10-p90", f"time / {best}", "output differs by"]]
        for label in order:
            latency = found.comparison.latency[label]
            ratio = found.comparison.speedup(best, label)
            spread = f"{latency.p10:.2f}-{latency.p90:.2f}"
            rows.append(
                [label, f"{latency.median:.2f}", spread, f"{ratio:.2f}", f"{found.differences[label]:.0e}"]
            )
        lines += [text_table(rows), f"fastest: {best}"]
    lines += [f"not timed: {label}: {reason}" for label, reason in found.missing.items()]
    return "\n".join(lines)


def show_progress(text: str) -> None:
    """One line that is written over, where there is a terminal to do so."""
    if sys.stderr.isatty():
        width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
        print(f"\r{text[:width]:<{width}}\r", end="", file=sys.stderr, flush=True)
