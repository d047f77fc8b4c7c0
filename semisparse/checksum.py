"""Checksums of tensors: how files notice damage, and tunings find their layers again."""

import zlib

import torch
from torch import Tensor


def crc32(tensor: Tensor) -> int:
    """Checksum of a tensor's contents, as files store it."""
    # As bytes: numpy has no bfloat16. Both file format and supported machines are little-endian.
    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
