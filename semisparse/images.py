"""The image that a converted network takes, for commands that make one up."""

from __future__ import annotations

import torch
from torch import Tensor

from semisparse.converted import ConvertedModel
from semisparse.sized import SizedModel

__all__ = ["image_shape", "random_image", "select"]


def select(model: ConvertedModel | SizedModel, size: int | None) -> ConvertedModel:
    """The network for square images of `size` pixels; None: the main one."""
    if isinstance(model, SizedModel):
        return model.models[0] if size is None else model.at((size, size))
    return model


def image_shape(model: ConvertedModel, size: int | None) -> tuple[int, int, int]:
    """(C, H, W) of the one image that `model` takes, its height and width `size` where they are free.

    Raises:
        ValueError: other inputs than one image batch, a size that it does not take, or none where it is
            needed.
    """
    inputs = model.graph.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype != "float32":
        kinds = [f"{i.dtype}{list(i.shape)}" for i in inputs]
        raise ValueError(f"the model takes {', '.join(kinds)}; expected one float32 image batch (N, C, H, W)")
    _, channels, height, width = inputs[0].shape
    if size is None and None in (channels, height, width):
        raise ValueError("the model takes images of any size; say which with --size PIXELS")
    if size is not None and any(side not in (None, size) for side in (height, width)):
        raise ValueError(f"the model takes images of {height} x {width} pixels, and --size is {size}")
    if channels is None:
        raise ValueError(
            "the model takes images of any number of channels; convert it with an example of one"
        )
    return channels, height or size, width or size


def random_image(model: ConvertedModel, size: int | None, batch: int = 1, seed: int = 0) -> Tensor:
    """Normally distributed float32 (batch, C, H, W) for `model`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *image_shape(model, size), generator=generator)
