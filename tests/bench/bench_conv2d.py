"""The operator on the 3x3 layers of ResNet18, dense and sparse, against torch."""

import pytest
import torch

from semisparse.eval import imposed
from semisparse.eval.layers import RESNET18, SETTINGS, Layer, measure
from semisparse.latency import fixed_threads


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("layer", RESNET18, ids="{0.channels}x{0.side}".format)  # no @ in -k
@pytest.mark.parametrize("threads", [1, 2], ids="{}threads".format)
def test_conv2d(benchmark, record, layer: Layer, setting: str, threads: int):
    settings = [imposed.parse(text) for text in dict.fromkeys(["dense", setting])]
    calls, comparison = measure(layer, settings, threads=threads, rounds=10)
    ours = str(settings[-1])
    record(comparison, ours)
    benchmark.group = f"conv2d {layer}, {threads} thread(s)"
    with fixed_threads(threads), torch.inference_mode():
        benchmark(calls[ours])
