"""`semisparse bench`: latency of converted models, with the same network dense and on other engines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import semisparse as ss
from semisparse._files import replace_atomically
from semisparse.converted import ConvertedModel
from semisparse.dense import dense, plain
from semisparse.eval.network import report, runtime_candidates
from semisparse.eval.peers import ENGINES, Candidate, race
from semisparse.eval.peers.main import show_progress
from semisparse.images import image_shape, select
from semisparse.info import collect
from semisparse.latency import random_input
from semisparse.tuning_file import tuning_path


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="semisparse bench",
        description="Time converted models: fixed threads, warm-up, interleaved rounds, each candidate in a "
        "process of its own, medians and spread; with them the same network dense. Tuned ones run as tuned.",
    )
    result.add_argument("models", nargs="+", metavar="FILE", help="converted models (.safetensors)")
    result.add_argument(
        "--peers",
        default="",
        metavar="NAMES",
        help=f"also the first model, without its sparsity, on engines of {','.join(ENGINES)}",
    )
    result.add_argument(
        "--runtime", action="store_true", help="each also by semisparse.runtime, without torch, not tuned"
    )
    result.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of the image (default: the model's own)"
    )
    result.add_argument("--batch", type=int, default=1)
    result.add_argument("--threads", type=int, nargs="+", default=[1])
    result.add_argument("--rounds", type=int, default=20, help="interleaved measurements of each candidate")
    result.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    args = parser().parse_args(argv)
    if args.batch < 1:
        raise ValueError(f"--batch is {args.batch}, expected at least 1")
    networks: dict[str, ConvertedModel] = {}
    tunings: dict[str, Path | None] = {}
    shape = None
    for path in args.models:
        label = Path(path).stem if Path(path).stem not in networks else str(path)
        network = select(ss.load(path), args.size)
        own = image_shape(network, args.size)
        if shape is not None and own != shape:
            raise ValueError(f"{path} takes images of {own}, the models before it of {shape}; give --size")
        networks[label], shape = network, own
        tunings[label] = tuning_path(path) if tuning_path(path).exists() else None
    first = next(iter(networks.values()))
    labels = {"dense": dense(first)} | networks
    example = random_input(args.batch, *shape)
    candidates = [Candidate(name, name, plain(first)) for name in filter(None, args.peers.split(","))] + [
        Candidate(label, "semisparse", network, tunings.get(label)) for label, network in labels.items()
    ]
    if args.runtime:
        again = runtime_candidates(labels)
        candidates += again
        labels |= {candidate.label: candidate.model for candidate in again}
    results = []
    for threads in args.threads:
        found = race(candidates, example, threads=threads, rounds=args.rounds, progress=show_progress)
        size = "x".join(map(str, example.shape))
        print(f"\ninput {size}, float32, {threads} thread(s):")
        print(report(found, labels), flush=True)
        results.append({"input": list(example.shape)} | found.as_dict())
    if args.json:
        with replace_atomically(args.json) as file:
            file.write(json.dumps({"machine": collect(), "benchmarks": results}, indent=1).encode())
        print(f"wrote {args.json}")


if __name__ == "__main__":
    main()
