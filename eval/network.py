"""Latency of a whole network with columns removed from its layers, before any training.

`python -m semisparse.eval.network` prints the table of README: medians of interleaved calls in one run.
Weights are random, masks are imposed; for a trained network use `semisparse eval classify`.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import semisparse as ss
from semisparse._files import replace_atomically
from semisparse.eval import imposed, peers
from semisparse.eval.latency import Comparison, compare, random_input
from semisparse.eval.peers import Call
from semisparse.eval.result import text_table
from semisparse.info import collect
from semisparse.recipe import Columns
from semisparse.train.models import make_classifier

SPARSITIES = (imposed.columns(0.0), imposed.columns(0.3), imposed.columns(0.3, "run16"))


def random_network(name: str, size: int, seed: int = 0) -> nn.Module:
    """An eval-mode classifier whose activations look trained: BatchNorm statistics are those of random input.

    Without that, activations of an untrained network explode or vanish, and arithmetic on denormals is slow.
    """
    torch.manual_seed(seed)
    model = make_classifier(name, 1000).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(random_input(8, 3, size, size, seed=seed))
    return model.eval()


def measure(
    name: str,
    sparsities: Sequence[Columns],
    *,
    size: int = 224,
    threads: int = 1,
    rounds: int = 30,
    engines: Sequence[str] = ("torch", "onnxruntime"),
) -> tuple[dict[str, Call], Comparison, dict[str, str]]:
    """Time a classifier converted at each sparsity, and the dense one in other engines, interleaved, batch 1.

    Returns:
        The timed calls by name, their latencies, and for each engine that is not installed the reason.
    """
    model, example = random_network(name, size), random_input(1, 3, size, size)
    calls, missing = peers.build(engines, model, example, threads)
    for setting in sparsities:
        sparse = copy.deepcopy(model)
        imposed.impose_columns(sparse, setting, example)
        calls[imposed.label(setting)] = _call(ss.convert(sparse, example), example)
    return calls, compare(calls, threads=threads, rounds=rounds), missing


def main(argv: Sequence[str] | None = None) -> None:
    """Print and optionally store the table."""
    parser = argparse.ArgumentParser(
        prog="python -m semisparse.eval.network",
        description="Latency of a classifier, random weights, dense and with columns removed.",
    )
    parser.add_argument("--model", default="resnet18", help="a torchvision classifier")
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--peers", default="torch,onnxruntime", help=f"engines of {','.join(peers.ENGINES)}")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args(argv)
    results = []
    missing: dict[str, str] = {}
    for threads in args.threads:
        _, found, missing = measure(
            args.model,
            SPARSITIES,
            size=args.size,
            threads=threads,
            rounds=args.rounds,
            engines=[name for name in args.peers.split(",") if name],
        )
        results.append({"model": args.model, "size": args.size} | found.as_dict())
        print(f"\n{args.model} at {args.size} px, batch 1, float32, {threads} thread(s):")
        print(text_table(_rows(found)), flush=True)
    for name, reason in missing.items():
        print(f"not compared with {name}: {reason}")
    if args.json:
        with replace_atomically(args.json) as file:
            file.write(json.dumps({"machine": collect(), "networks": results}, indent=1).encode())


def _rows(found: Comparison) -> list[list[str]]:
    ours = imposed.label(SPARSITIES[0])
    engines = [name for name in found.latency if name not in map(imposed.label, SPARSITIES)]
    rows = [["", "median ms", "p10-p90", *(f"x {name}" for name in engines), "x own dense"]]
    for name, latency in found.latency.items():
        against = [f"{found.speedup(name, other):.2f}" for other in [*engines, ours]]
        rows.append([name, f"{latency.median:.2f}", f"{latency.p10:.2f}-{latency.p90:.2f}", *against])
    return rows


def _call(network: nn.Module, example: torch.Tensor) -> Call:
    return lambda: network(example)


if __name__ == "__main__":
    main()
