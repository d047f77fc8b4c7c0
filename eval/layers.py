"""Single layers: the 3x3 convolutions of ResNet18, dense and with columns removed, against torch.

`python -m semisparse.eval.layers` prints the table of README: medians of interleaved calls in one run.
tests/bench takes its cases from here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import semisparse  # noqa: F401  (registers the operators)
from semisparse._files import replace_atomically
from semisparse.eval import imposed
from semisparse.eval.latency import Comparison, compare, random_input
from semisparse.eval.peers import Call
from semisparse.eval.result import text_table
from semisparse.info import collect
from semisparse.masking import column_mask
from semisparse.recipe import Columns


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
SPARSITIES = (*map(imposed.columns, (0.0, 0.1, 0.2, 0.3)), imposed.columns(0.3, "run16"))


class Case:
    """Random data of one layer, and the calls to time on it (batch 1, float32, with bias)."""

    def __init__(self, layer: Layer, seed: int = 0):
        self.layer = layer
        channels, side = layer.channels, layer.side
        self.input = random_input(1, channels, side, side, seed=seed)
        # He initialisation keeps outputs near 1, as in a trained network.
        self.weight = random_input(channels, channels, 3, 3, seed=seed + 1) * (2 / (9 * channels)) ** 0.5
        self.bias = random_input(channels, seed=seed + 2)
        self.packed = torch.ops.semisparse.pack_weight(self.weight)

    def mask(self, setting: Columns) -> torch.Tensor | None:
        """Bool (side, side), True = computed, from the generator that training uses; None at ratio 0."""
        network = nn.Sequential(nn.Conv2d(self.layer.channels, self.layer.channels, 3, padding=1))
        imposed.impose_columns(network, setting, self.input, skip=())
        return column_mask(network[0])

    def semisparse(self, setting: Columns) -> Call:
        """Our operator on contiguous (NCHW) input."""
        mask = self.mask(setting)
        x, packed, bias, shape = self.input, self.packed, self.bias, list(self.weight.shape)
        run = torch.ops.semisparse.conv2d.packed
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
    layer: Layer, sparsities: Sequence[Columns], *, threads: int = 1, rounds: int = 30
) -> tuple[dict[str, Call], Comparison]:
    """Time torch, prepacked oneDNN and our operator at each sparsity on one layer, interleaved.

    Returns:
        The timed calls by name (`imposed.label` for ours) and their latencies.
    """
    case = Case(layer)
    calls: dict[str, Call] = {"torch": case.torch(), "onednn prepacked": case.onednn_prepacked()}
    calls |= {imposed.label(setting): case.semisparse(setting) for setting in sparsities}
    return calls, compare(calls, threads=threads, rounds=rounds)


def _cell(result: Comparison, name: str) -> str:
    baseline = "torch" if name in ("torch", "onednn prepacked", "dense") else "dense"
    return f"{result.latency[name].median:.3f} ({result.speedup(name, baseline):.2f}x)"


def main(argv: Sequence[str] | None = None) -> None:
    """Print and optionally store the table."""
    parser = argparse.ArgumentParser(prog="python -m semisparse.eval.layers", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args(argv)
    results = []
    names = ["torch", "onednn prepacked", *map(imposed.label, SPARSITIES)]
    for threads in args.threads:
        rows = [["layer", *names]]
        for layer in RESNET18:
            _, result = measure(layer, SPARSITIES, threads=threads, rounds=args.rounds)
            rows.append([str(layer), *(_cell(result, name) for name in names)])
            results.append({"layer": str(layer)} | result.as_dict())
        print(
            f"\n{threads} thread(s), batch 1, float32: median ms and speed-up, of the dense ones over torch"
        )
        print("channels_last, of those with columns removed over our own dense:")
        print(text_table(rows), flush=True)
    if args.json:
        with replace_atomically(args.json) as file:
            file.write(json.dumps({"machine": collect(), "layers": results}, indent=2).encode())


if __name__ == "__main__":
    main()
