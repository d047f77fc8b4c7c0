"""Whole ResNet18 at 224 px, dense and with 30% of the columns removed, against torch and ONNX Runtime."""

import pytest
import torch

from semisparse.eval import imposed
from semisparse.eval.latency import fixed_threads
from semisparse.eval.network import SPARSITIES, measure
from semisparse.recipe import Columns


@pytest.mark.parametrize("columns", SPARSITIES, ids=imposed.label)
@pytest.mark.parametrize("threads", [1, 2], ids="{}threads".format)
def test_resnet18(benchmark, record, columns: Columns, threads: int):
    calls, comparison, _ = measure("resnet18", [imposed.columns(0.0), columns], threads=threads, rounds=10)
    ours = imposed.label(columns)
    record(comparison, ours)
    benchmark.group = f"resnet18, {threads} thread(s)"
    with fixed_threads(threads), torch.inference_mode():
        benchmark(calls[ours])
