"""Models to measure, by what users have: a torchvision name, an exported program, a converted file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

import semisparse as ss
from semisparse.dense import plain
from semisparse.eval.latency import random_input
from semisparse.train.models import make_classifier


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


def load_model(model: str, size: int) -> tuple[nn.Module, nn.Module]:
    """A model for semisparse and the same for other engines (for a converted one: without its sparsity).

    Args:
        model: torchvision classifier, given random weights; `.pt2` or `.safetensors` file.
        size: side of the image; only the random weights depend on it.

    Raises:
        ValueError: neither of these, or a damaged file.
    """
    if not model.endswith((".pt2", ".safetensors")):
        network = random_network(model, size)
        return network, network
    if not Path(model).is_file():
        raise ValueError(f"there is no file {model}")
    if model.endswith(".safetensors"):
        fast = ss.load(model)
        return fast, plain(fast)
    network = load_program(model)
    return network, network


def load_program(path: str | os.PathLike) -> nn.Module:
    """The module of a file that torch.export.save wrote; its inputs have the shape that it was exported with.

    Raises:
        ValueError: no such file, or one that holds anything but tensors and a graph.
    """
    # torch.export.load would unpickle what a file holds; this makes torch.load refuse.
    with _environment("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"):
        try:
            module = torch.export.load(path).module()
        except Exception as error:  # of many kinds, zip and JSON errors among them
            raise ValueError(f"{path} is not a program that torch.export.save wrote: {error}") from error
    # An exported program is in eval mode for good, and refuses to be told so, which exporters do.
    module.train = module.eval = lambda mode=False: module
    return module


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.__setitem__(name, before)
