"""What a bug report needs: processor, kernels, versions. Shown by `semisparse info`, stored by benchmarks."""

from __future__ import annotations

import importlib.metadata
import platform

_PACKAGES = ("torch", "numpy", "safetensors", "torchvision", "onnxruntime")


def collect() -> dict[str, str]:
    """Describe machine and installation as ordered text fields, without any path or host name.

    Works where torch or the compiled core is missing: the field then says why.
    """
    fields = {
        "semisparse": _version("semisparse"),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.machine()}",
    }
    fields |= {name: _version(name) for name in _PACKAGES}
    fields |= _core()
    fields |= _torch()
    return fields


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _core() -> dict[str, str]:
    try:
        from semisparse import runtime
    except ImportError as error:
        return {"kernels": f"not available: {error}"}
    processor = {f"cpu {key}": _text(value) for key, value in runtime.cpu_info().items()}
    return processor | {"kernels": runtime.kernel_name(), "compiler": runtime.compiler()}


def _torch() -> dict[str, str]:
    try:
        import torch
    except ImportError:  # a board without torch
        return {}
    return {
        "torch threads": str(torch.get_num_threads()),
        "torch cpu capability": torch.backends.cpu.get_cpu_capability(),
        "torch onednn": "yes" if torch.backends.mkldnn.is_available() else "no",
        "torch cuda": torch.version.cuda or "no",
    }


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
