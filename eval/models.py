"""Models to measure, by what users have: a name, Python code, an exported program, a converted file."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import semisparse as ss
from semisparse.converted import ConvertedModel
from semisparse.dense import plain
from semisparse.images import random_image, select
from semisparse.latency import random_input
from semisparse.train.models import make_classifier
from semisparse.train.run import load_run


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


def call(path: str) -> nn.Module:
    """What the function `package.module:function` returns, in eval mode. The working directory is searched
    too.

    Raises:
        ValueError: there is no such function, or it returns something else than a module.
    """
    module, _, function = path.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        network = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no {path}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    if not isinstance(network, nn.Module):
        raise ValueError(f"{path} returned a {type(network).__name__}, expected a torch.nn.Module")
    return network.eval()


def default_size(model: str) -> int | None:
    """Side of the image that networks of this kind are usually measured at; None: the file says."""
    if model.endswith(".safetensors"):
        return None
    return 640 if model.endswith((".yaml", ".yml")) else 224


def load_model(model: str, size: int | None) -> tuple[nn.Module, nn.Module]:
    """A model for semisparse and the same for other engines (for a converted one: without its sparsity).

    Args:
        model: torchvision classifier, or YOLO detector (`yolov8n.yaml`), given random weights;
            `module:function`, a function without arguments that returns a module; a file, `.pt2` or
            `.safetensors`.
        size: side of the image; only the random weights depend on it.

    Raises:
        ValueError: neither of these, or a damaged file.
    """
    size = size or default_size(model)
    if model.endswith((".yaml", ".yml")):
        from semisparse.eval.detectors import random_detector

        network = random_detector(model, size)
        return network, network
    if not model.endswith((".pt2", ".safetensors")):
        network = call(model) if ":" in model else random_network(model, size)
        return network, network
    if not Path(model).is_file():
        raise ValueError(f"there is no file {model}")
    if model.endswith(".safetensors"):
        fast = select(ss.load(model), size)
        return fast, plain(fast)
    network = load_program(model)
    return network, network


def converted_model(model: str, size: int | None, setting: str = "dense") -> tuple[ConvertedModel, Tensor]:
    """A converted network of what `load_model` takes, or of a training run's directory, and an image for it.

    Args:
        size: side of the image; None for what the file or the run says, or the usual one.
        setting: sparsity to impose on a network that is not converted yet, see `semisparse.eval.imposed`.

    Raises:
        ValueError: a damaged file, a size that the network does not take, or a setting for a converted one.
    """
    from semisparse.eval import imposed

    if model.endswith(".safetensors"):
        if not imposed.parse(setting).dense:
            raise ValueError(f"{model} is converted: {setting!r} can only be imposed before that")
        network = select(ss.load(model), size)
        return network, random_image(network, size)
    if Path(model).is_dir():
        run = load_run(model)
        network, example = run.model, run.example()
        example = random_input(*example.shape)
        if size not in (None, example.shape[-1]):
            raise ValueError(f"{model} was trained at {example.shape[-1]} pixels, and --size is {size}")
    else:
        size = size or default_size(model)
        network, _ = load_model(model, size)
        example = random_input(1, 3, size, size)
    network = imposed.impose(network, imposed.parse(setting), example)
    return ss.convert(network, example, free_size=False), example


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
