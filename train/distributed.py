"""The little of torch.distributed that training needs; every function is a no-op in a single process."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


def active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if active() else 0


def world_size() -> int:
    return dist.get_world_size() if active() else 1


def initialize(device: str) -> torch.device:
    """Join the process group that torchrun announces in the environment, and pick this rank's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not active():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    return torch.device(device)


def sum_(tensor: Tensor) -> Tensor:
    """Add up `tensor` over the ranks, in place."""
    if active():
        _collective(dist.all_reduce, tensor)
    return tensor


def mean_(tensor: Tensor) -> Tensor:
    return sum_(tensor).div_(world_size()) if active() else tensor


def broadcast_(tensor: Tensor) -> Tensor:
    """Rank 0's values, on every rank, in place."""
    if active():
        _collective(lambda t: dist.broadcast(t, src=0), tensor)
    return tensor


def _collective(operation, tensor: Tensor) -> None:
    if dist.get_backend() == "nccl" and not tensor.is_cuda:  # nccl moves CUDA tensors only
        moved = tensor.cuda()
        operation(moved)
        tensor.copy_(moved)
    else:
        operation(tensor)


def barrier() -> None:
    if active():
        dist.barrier()
