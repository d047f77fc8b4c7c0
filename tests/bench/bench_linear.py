"""`semisparse::linear` on classifiers of ResNet18, ResNet50 and VGG16, dense and sparse, against torch."""

import pytest
import torch
import torch.nn.functional as F

from semisparse.converted import pack_weight
from semisparse.latency import compare, fixed_threads, random_input

LAYERS = ((512, 1000), (2048, 1000), (4096, 4096))
# Fraction removed, and output features that share their inputs (a block-pruned layer).
SPARSITIES = {"dense": (0.0, 1), "unstructured 0.8": (0.8, 1), "blocks of 8, 0.8": (0.8, 8)}


def sparse_weight(inputs: int, outputs: int, removed: float, block: int) -> torch.Tensor:
    weight = random_input(outputs, inputs, seed=1)
    generator = torch.Generator().manual_seed(2)
    kept = torch.rand(outputs // block, inputs, generator=generator) >= removed
    return torch.where(kept.repeat_interleave(block, 0), weight, 0)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("rows", [1, 8, 64], ids="{}rows".format)
@pytest.mark.parametrize("layer", LAYERS, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("threads", [1, 2], ids="{}threads".format)
def test_linear(benchmark, record, layer, rows: int, sparsity: str, threads: int):
    inputs, outputs = layer
    x, bias = random_input(rows, inputs), random_input(outputs, seed=3)
    weight = sparse_weight(inputs, outputs, *SPARSITIES[sparsity])
    dense, packed = pack_weight(random_input(outputs, inputs, seed=1), 1), pack_weight(weight, 1)
    run = torch.ops.semisparse.linear
    calls = {
        "torch": lambda: F.linear(x, weight, bias),
        "own dense": lambda: run(x, dense, [outputs, inputs], bias),
        sparsity: lambda: run(x, packed, [outputs, inputs], bias),
    }
    record(compare(calls, threads=threads, rounds=20), sparsity)
    benchmark.group = f"linear {inputs}->{outputs}, {rows} row(s), {threads} thread(s)"
    with fixed_threads(threads), torch.inference_mode():
        benchmark(calls[sparsity])
