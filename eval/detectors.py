"""YOLO detectors with random weights, to measure before any training."""

from __future__ import annotations

import torch
from torch import nn

from semisparse.latency import random_input


def random_detector(name: str, size: int, seed: int = 0) -> nn.Module:
    """An eval-mode detector of Ultralytics (`yolov8n.yaml`) for pictures of `size` x `size`, boxes decoded.

    Its BatchNorm statistics are those of random input, so that activations look trained.
    """
    from semisparse.train.integrations import ultralytics as integration

    torch.manual_seed(seed)
    model = integration.load(integration.open_yolo(name)).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(random_input(2, 3, size, size, seed=seed))
    return integration.plain(model, (size, size))
