"""Whole networks at 224 px with imposed sparsity, against the dense network on every engine that is
installed."""

import pytest
import torch

from semisparse.eval import imposed
from semisparse.eval.models import random_network
from semisparse.eval.network import PEERS, SETTINGS, measure
from semisparse.latency import fixed_threads, random_input

EIGHTFOLD = "pattern+group=4+connectivity=0.72"
CASES = [
    *(("resnet18", setting) for setting in SETTINGS),
    ("vgg16_bn", EIGHTFOLD),
    ("resnet50", f"{EIGHTFOLD};1x1:block=0.875"),
    ("resnet50", f"{EIGHTFOLD}+columns=0.3;1x1:block=0.875"),
]


@pytest.mark.parametrize(("model", "setting"), CASES)
@pytest.mark.parametrize("threads", [1, 2], ids="{}threads".format)
def test_network(benchmark, record, model: str, setting: str, threads: int):
    settings = [imposed.parse(text) for text in dict.fromkeys(["dense", setting])]
    example = random_input(1, 3, 224, 224)
    race, networks = measure(
        random_network(model, 224), settings, example, threads=threads, rounds=10, engines=PEERS
    )
    ours = str(settings[-1])
    record(race.comparison, ours)
    benchmark.extra_info["not_timed"] = race.missing
    benchmark.group = f"{model}, {threads} thread(s)"
    network = networks[ours]
    with fixed_threads(threads), torch.inference_mode():
        benchmark(network, example)
