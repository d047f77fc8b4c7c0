"""Latency of a whole network at a pretended sparsity, before any training: `semisparse plan`.

`python -m semisparse.eval.network` prints the table of README: medians of interleaved calls in one run, each
candidate in a process of its own. Weights are random, sparsity is imposed; for a trained network use
`semisparse eval classify`.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

import semisparse as ss
from semisparse._files import replace_atomically
from semisparse._table import text_table
from semisparse.converted import ConvertedModel
from semisparse.eval import imposed
from semisparse.eval.imposed import Imposed
from semisparse.eval.models import default_size, load_model
from semisparse.eval.peers import ENGINES, OWN, Candidate, Race, race
from semisparse.eval.peers.main import show_progress
from semisparse.info import collect
from semisparse.latency import random_input

SETTINGS = (
    "dense",
    "columns=0.3",
    "columns=0.3+granularity=run16",
    "columns=0.3+granularity=tile4x4",
    "connectivity=0.72+group=4+columns=0.3+granularity=tile4x4",
    "pattern+group=4+columns=0.3",
    "pattern+group=4+connectivity=0.72+columns=0.3",
)
PEERS = ("torch", "torch.compile", "onnxruntime", "openvino", "ncnn", "mnn", "litert")


def converted(model: nn.Module, setting: Imposed, example: Tensor) -> ConvertedModel:
    """A converted copy of `model` with the sparsity of `setting`."""
    return ss.convert(imposed.impose(copy.deepcopy(model), setting, example), example, free_size=False)


def measure(
    model: nn.Module,
    settings: Sequence[Imposed],
    example: Tensor,
    *,
    threads: int = 1,
    rounds: int = 20,
    engines: Sequence[str] = ("torch", "onnxruntime"),
    runtime: bool = False,
    progress: Callable[[str], object] = lambda text: None,
) -> tuple[Race, dict[str, ConvertedModel]]:
    """Time a network converted at each setting, and the dense one on other engines, interleaved.

    Args:
        runtime: also by `semisparse.runtime`, without torch.

    Returns:
        The race, whose labels are engines and settings, and the converted networks by label.
    """
    networks = {str(setting): converted(model, setting, example) for setting in settings}
    candidates = [Candidate(name, name, model) for name in engines]
    candidates += [Candidate(label, "semisparse", network) for label, network in networks.items()]
    if runtime:
        again = runtime_candidates(networks)
        candidates += again
        networks |= {candidate.label: candidate.model for candidate in again}
    return race(candidates, example, threads=threads, rounds=rounds, progress=progress), networks


def runtime_candidates(networks: Mapping[str, ConvertedModel]) -> list[Candidate]:
    """The same networks run by `semisparse.runtime`."""
    return [
        Candidate(f"{label}, runtime", "semisparse.runtime", network) for label, network in networks.items()
    ]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="semisparse plan",
        description="How fast would a network be at a given sparsity? Timed before any training, with the "
        "dense network on other engines in the same run.",
    )
    result.add_argument(
        "--model",
        default="resnet18",
        help="a torchvision classifier or a YOLO detector (yolov8n.yaml) with random weights, or "
        "module:function that returns a model",
    )
    result.add_argument(
        "--imposed",
        action="append",
        metavar="SETTING",
        help="what to remove: 'pattern+group=4+connectivity=0.72,columns=0.3', also '; 1x1:block=0.75' for "
        "layers of a kind, or the name of a recipe; may be repeated (default: " + " | ".join(SETTINGS) + ")",
    )
    result.add_argument("--size", type=int, metavar="PIXELS", help="side of the image (default: the usual)")
    result.add_argument("--threads", type=int, nargs="+", default=[1])
    result.add_argument("--rounds", type=int, default=20)
    result.add_argument(
        "--peers",
        default=",".join(PEERS),
        metavar="NAMES",
        help=f"of {','.join(ENGINES)} (default: %(default)s)",
    )
    result.add_argument("--runtime", action="store_true", help="also by semisparse.runtime, without torch")
    result.add_argument(
        "--layers", action="store_true", help="also a table of every layer for the last setting"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Print and optionally store the table."""
    args = parser().parse_args(argv)
    texts = args.imposed or SETTINGS
    # Our own dense network is what sparsity is compared with.
    settings = [imposed.parse(text) for text in dict.fromkeys(["dense", *texts])]
    size = args.size or default_size(args.model)
    if size is None:
        raise ValueError(f"{args.model} is converted: sparsity can only be imposed before that; see bench")
    model, _ = load_model(args.model, size)
    example = random_input(1, 3, size, size)
    results = []
    for threads in args.threads:
        found, networks = measure(
            model,
            settings,
            example,
            threads=threads,
            rounds=args.rounds,
            engines=[name for name in args.peers.split(",") if name],
            runtime=args.runtime,
            progress=show_progress,
        )
        results.append({"model": args.model, "size": size} | found.as_dict())
        print(f"\n{args.model} at {size} px, batch 1, float32, {threads} thread(s):")
        print(report(found, networks), flush=True)
    if args.layers:
        last = networks[str(settings[-1])]
        print(f"\n{settings[-1]}, layer by layer:\n{ss.explain(last, example, threads=args.threads[-1])}")
    if args.json:
        with replace_atomically(args.json) as file:
            file.write(json.dumps({"machine": collect(), "networks": results}, indent=1).encode())


def report(found: Race, networks: dict[str, ConvertedModel]) -> str:
    """A line for each candidate: latency, and how many times faster than the fastest engine and than our own
    dense."""
    best = found.fastest(among=[name for name in ENGINES if name not in OWN])
    baselines = {f"x {best}" if best else "": best, "x own dense": "dense"}
    baselines = {title: label for title, label in baselines.items() if label in found.comparison.latency}
    rows = [["", "MACs", "median ms", "p10-p90", *baselines]]
    for label, latency in found.comparison.latency.items():
        removed = ""
        if label in networks:
            work = ss.statistics(networks[label])
            removed = f"{work.macs_kept / work.macs_dense:.0%}" if work.macs_dense else ""
        against = [f"{found.comparison.speedup(label, other):.2f}" for other in baselines.values()]
        rows.append(
            [label, removed, f"{latency.median:.2f}", f"{latency.p10:.2f}-{latency.p90:.2f}", *against]
        )
    lines = [text_table(rows)] + ([f"fastest dense engine: {best}"] if best else [])
    return "\n".join(lines + [f"not timed: {label}: {reason}" for label, reason in found.missing.items()])


if __name__ == "__main__":
    main()
