"""`torch.compile` (Inductor) in channels_last with weights frozen."""

import torch
from torch import Tensor, nn

PACKAGES = ("torch",)


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    import torch._inductor.config as inductor

    model = model.to(memory_format=torch.channels_last)
    x = example.contiguous(memory_format=torch.channels_last)
    # For the whole process: a later call under another grad mode compiles anew, and must freeze weights too.
    inductor.freezing = True
    compiled = torch.compile(model)
    return lambda: compiled(x)
