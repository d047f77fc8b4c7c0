"""Loads the native operator library and completes it: fake kernels with data-dependent sizes, and autocast.

The rest (schema, CPU and meta kernels, autograd) is in C++, see cpp/torch.
"""

from __future__ import annotations

import threading
from pathlib import Path

LIBRARY = Path(__file__).with_name("libsemisparse_torch.so")
_REBUILD = """To build it for the installed torch, in a checkout of semisparse:
    pip install --force-reinstall --no-deps .          or, to work on it,
    pip install --no-build-isolation --no-deps -e ."""
_MARKER = b"semisparse built for torch "

_lock = threading.RLock()
_registered = False


def built_for_torch() -> str | None:
    """Version of torch that the library was compiled against; None if there is no library or no such mark."""
    if not LIBRARY.is_file():
        return None
    content = LIBRARY.read_bytes()
    start = content.find(_MARKER)
    if start < 0:
        return None
    start += len(_MARKER)
    return content[start : content.index(b"\0", start)].decode()


def register() -> None:
    """Make `torch.ops.semisparse.*` available. Does nothing the second time.

    Raises:
        RuntimeError: the native library is missing, was built for another torch, or cannot be loaded.
    """
    global _registered
    with _lock:
        if _registered:
            return
        import torch
        from torch import library

        _load(torch)
        _register_fakes(torch)
        for name in ("conv2d", "conv2d.packed", "linear", "max_pool2d"):
            # Under torch.autocast the layer before hands over bfloat16; these kernels compute in float32.
            library.register_autocast(f"semisparse::{name}", "cpu", torch.float32)
        _registered = True


def _load(torch) -> None:
    if not LIBRARY.is_file():
        raise RuntimeError(
            f"semisparse's operator library is missing: there is no {LIBRARY}.\n"
            "It is made when the package is installed; this looks like a source tree put on the path without "
            f"installing it, or a build with SEMISPARSE_WITHOUT_TORCH=1.\n{_REBUILD}"
        )
    built, running = built_for_torch(), torch.__version__.split("+")[0]
    if built is not None and built.split(".")[:2] != running.split(".")[:2]:
        raise RuntimeError(
            f"semisparse's operator library was built for torch {built}, but torch {running} is running; "
            f"PyTorch's C++ interface differs between the two.\n{_REBUILD}"
        )
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        raise RuntimeError(
            f"semisparse's operator library {LIBRARY}, built for torch {built}, cannot be loaded by torch "
            f"{running}: {error}\n{_REBUILD}"
        ) from error


def _register_fakes(torch) -> None:
    from torch import library

    @library.register_fake("semisparse::pack_weight")
    def pack_weight(weight, groups=1):
        torch._check(
            weight.dim() in (2, 4) and weight.dtype == torch.float32,
            lambda: (
                "semisparse::pack_weight: `weight` must be float32 of shape (OC, IC/groups, KH, KW), or "
                f"(OUT, IN) of a linear layer, got {weight.dtype} of shape {tuple(weight.shape)}"
            ),
        )
        size = library.get_ctx().new_dynamic_size()
        return weight.new_empty(size, dtype=torch.uint8)

    @library.register_fake("semisparse::unpack_weight")
    def unpack_weight(packed):
        torch._check(
            packed.dim() == 1 and packed.dtype == torch.uint8,
            lambda: (
                "semisparse::unpack_weight: `packed` must be one-dimensional uint8, got "
                f"{packed.dtype} of shape {tuple(packed.shape)}"
            ),
        )
        context = library.get_ctx()
        return packed.new_empty([context.new_dynamic_size() for _ in range(4)], dtype=torch.float32)
