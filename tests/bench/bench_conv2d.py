"""The operator on the 3x3 layers of ResNet18, dense and with columns removed, against torch."""

import pytest
import torch

from semisparse.eval import imposed
from semisparse.eval.latency import fixed_threads
from semisparse.eval.layers import RESNET18, SPARSITIES, Layer, measure
from semisparse.recipe import Columns


@pytest.mark.parametrize("columns", SPARSITIES, ids=imposed.label)
@pytest.mark.parametrize("layer", RESNET18, ids="{0.channels}x{0.side}".format)  # no @ in -k
@pytest.mark.parametrize("threads", [1, 2], ids="{}threads".format)
def test_conv2d(benchmark, record, layer: Layer, columns: Columns, threads: int):
    calls, comparison = measure(layer, [imposed.columns(0.0), columns], threads=threads, rounds=10)
    ours = imposed.label(columns)
    record(comparison, ours)
    benchmark.group = f"conv2d {layer}, {threads} thread(s)"
    with fixed_threads(threads), torch.inference_mode():
        benchmark(calls[ours])
