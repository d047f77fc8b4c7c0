"""Single layers: the 3x3 convolutions of ResNet18, dense and sparse, against torch.

`python -m semisparse.eval.layers` prints the table of README: medians of interleaved calls in one run. With
`--peers`, other engines run each layer as a network of its own, in the same run but in processes of their
own. tests/bench takes its cases from here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from semisparse._files import replace_atomically
from semisparse._table import text_table
from semisparse.converted import pack_weight
from semisparse.eval import imposed
from semisparse.eval.imposed import Imposed
from semisparse.eval.peers import ENGINES, Candidate, Race, race
from semisparse.info import collect
from semisparse.latency import Comparison, compare, random_input
from semisparse.masking import column_mask

Call = Callable[[], object]


@dataclass(frozen=True)
class Layer:
    """A 3x3, stride 1 convolution of `channels` -> `channels` on maps of `side` x `side` pixels."""

    channels: int
    side: int

    def __str__(self) -> str:
        return f"{self.channels}@{self.side}"

    @property
    def macs(self) -> int:
        return 9 * self.channels**2 * self.side**2


RESNET18 = (Layer(64, 56), Layer(128, 28), Layer(256, 14), Layer(512, 7))
SETTINGS = (
    "dense",
    "columns=0.1",
    "columns=0.2",
    "columns=0.3",
    "columns=0.3+granularity=run16",
    "columns=0.3+granularity=tile4x4",
    "connectivity=0.72+group=4",
    "connectivity=0.72+group=4+columns=0.3+granularity=tile4x4",
    "pattern+group=4",
    "pattern+group=4+columns=0.3",
    "pattern+group=4+connectivity=0.72",
    "pattern+group=4+connectivity=0.72+columns=0.3",
)


class Case:
    """Random data of one layer, and the calls to time on it (batch 1, float32, with bias)."""

    def __init__(self, layer: Layer, seed: int = 0):
        self.layer = layer
        channels, side = layer.channels, layer.side
        self.input = random_input(1, channels, side, side, seed=seed)
        # He initialisation keeps outputs near 1, as in a trained network.
        self.weight = random_input(channels, channels, 3, 3, seed=seed + 1) * (2 / (9 * channels)) ** 0.5
        self.bias = random_input(channels, seed=seed + 2)

    def network(self) -> nn.Sequential:
        """The dense layer as a network of its own."""
        network = nn.Sequential(nn.Conv2d(self.layer.channels, self.layer.channels, 3, padding=1))
        with torch.no_grad():
            network[0].weight.copy_(self.weight)
            network[0].bias.copy_(self.bias)
        return network.eval()

    def sparse(self, setting: Imposed) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight with the setting's zeros, and the column mask, bool (side, side), True = computed, or
        None."""
        network = imposed.impose(self.network(), setting, self.input, skip=())
        return network[0].weight.detach(), column_mask(network[0])

    def semisparse(self, setting: Imposed) -> Call:
        """Our operator on contiguous (NCHW) input."""
        weight, mask = self.sparse(setting)
        packed, shape = pack_weight(weight, 1), list(weight.shape)
        x, bias, run = self.input, self.bias, torch.ops.semisparse.conv2d.packed
        return lambda: run(x, packed, shape, bias, [1, 1], [1, 1], mask=mask)

    def torch(self) -> Call:
        """PyTorch eager in channels_last (oneDNN): the baseline."""
        x = self.input.contiguous(memory_format=torch.channels_last)
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        bias = self.bias
        return lambda: F.conv2d(x, weight, bias, padding=1)

    def onednn_prepacked(self) -> Call:
        """oneDNN with the weight reordered beforehand, as torch.compile does it for frozen models.

        Eager mode reorders the weight in every call, which is half the time of 512@7.
        """
        x = self.input.contiguous(memory_format=torch.channels_last)
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            self.weight, [1, 1], [1, 1], [1, 1], 1, list(x.shape)
        )
        bias = self.bias
        run = torch.ops.mkldnn._convolution_pointwise
        return lambda: run(x, weight, bias, [1, 1], [1, 1], [1, 1], 1, "none", [], "")


def measure(
    layer: Layer, settings: Sequence[Imposed], *, threads: int = 1, rounds: int = 30
) -> tuple[dict[str, Call], Comparison]:
    """Time torch, prepacked oneDNN and our operator at each setting on one layer, interleaved.

    Returns:
        The timed calls by name (the setting's label for ours) and their latencies.
    """
    case = Case(layer)
    calls: dict[str, Call] = {"torch": case.torch(), "onednn prepacked": case.onednn_prepacked()}
    calls |= {str(setting): case.semisparse(setting) for setting in settings}
    return calls, compare(calls, threads=threads, rounds=rounds)


def measure_peers(layer: Layer, engines: Sequence[str], *, threads: int = 1, rounds: int = 20) -> Race:
    """Time the dense layer on other engines, as a network of its own: conversion of layouts at its ends
    counts."""
    case = Case(layer)
    network = case.network()
    return race(
        [Candidate(name, name, network) for name in engines], case.input, threads=threads, rounds=rounds
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print and optionally store the table."""
    parser = argparse.ArgumentParser(prog="python -m semisparse.eval.layers", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--imposed", action="append", metavar="SETTING", help="see semisparse plan --help; may be repeated"
    )
    parser.add_argument("--peers", default="", metavar="NAMES", help=f"also engines of {','.join(ENGINES)}")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args(argv)
    settings = [imposed.parse(text) for text in dict.fromkeys(["dense", *(args.imposed or SETTINGS)])]
    engines = [name for name in args.peers.split(",") if name]
    results = []
    for threads in args.threads:
        columns: list[dict[str, str]] = []
        for layer in RESNET18:
            _, found = measure(layer, settings, threads=threads, rounds=args.rounds)
            columns.append({name: _cell(found, name) for name in found.latency})
            results.append({"layer": str(layer)} | found.as_dict())
            if engines:
                others = measure_peers(layer, engines, threads=threads, rounds=args.rounds)
                columns[-1] |= {name: f"{x.median:.3f}" for name, x in others.comparison.latency.items()}
                columns[-1] |= dict.fromkeys(others.missing, "-")
                results[-1]["peers"] = others.as_dict()
        rows = [["", *map(str, RESNET18)]]
        rows += [[name, *(column[name] for column in columns)] for name in columns[0]]
        print(f"\n{threads} thread(s), batch 1, float32: median ms (x torch channels_last, x our own dense):")
        print(text_table(rows), flush=True)
    if args.json:
        with replace_atomically(args.json) as file:
            file.write(json.dumps({"machine": collect(), "layers": results}, indent=2).encode())


def _cell(found: Comparison, name: str) -> str:
    ratios = [f"{found.speedup(name, other):.2f}" for other in ("torch", "dense")]
    return f"{found.latency[name].median:.3f} ({', '.join(ratios)})"


if __name__ == "__main__":
    main()
