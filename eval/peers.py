"""Other engines on the dense model: the baselines that a sparse network has to beat.

Each builder takes an eval-mode model and an example input and returns a callable without arguments that
runs one forward pass. Only engines that are installed are built; `build` says why another is missing.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import nn

Call = Callable[[], object]


def torch_eager(model: nn.Module, example: torch.Tensor, threads: int) -> Call:
    """PyTorch eager in channels_last, its faster layout for CPU convolutions (oneDNN)."""
    model = model.to(memory_format=torch.channels_last)
    x = example.contiguous(memory_format=torch.channels_last)
    return lambda: model(x)


def torch_compile(model: nn.Module, example: torch.Tensor, threads: int) -> Call:
    """`torch.compile` (Inductor) in channels_last with weights frozen."""
    import torch._inductor.config as inductor

    model = model.to(memory_format=torch.channels_last)
    x = example.contiguous(memory_format=torch.channels_last)
    with inductor.patch(freezing=True), torch.no_grad():
        compiled = torch.compile(model)
        compiled(x)
    return lambda: compiled(x)


def onnxruntime(model: nn.Module, example: torch.Tensor, threads: int) -> Call:
    """ONNX Runtime, CPU provider, all graph optimisations, exported by `torch.onnx`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Its idle threads would otherwise keep a core busy while the next engine is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(_onnx_bytes(model, example), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: example.contiguous().numpy()}
    return lambda: session.run(None, feed)


ENGINES: dict[str, Callable[[nn.Module, torch.Tensor, int], Call]] = {
    "torch": torch_eager,
    "torch.compile": torch_compile,
    "onnxruntime": onnxruntime,
}


def build(
    names: Iterable[str], model: nn.Module, example: torch.Tensor, threads: int
) -> tuple[dict[str, Call], dict[str, str]]:
    """Build the named engines for a dense model.

    Returns:
        The callables by engine name, and for each engine that is not installed the reason.

    Raises:
        ValueError: an unknown name.
    """
    ready: dict[str, Call] = {}
    missing: dict[str, str] = {}
    for name in names:
        if name not in ENGINES:
            raise ValueError(f"unknown engine {name!r}: choose among {', '.join(ENGINES)}")
        try:
            ready[name] = ENGINES[name](model, example, threads)
        except ModuleNotFoundError as error:
            missing[name] = f"{error.name} is not installed (pip install 'semisparse[peers]')"
    return ready, missing


def _onnx_bytes(model: nn.Module, example: torch.Tensor) -> bytes:
    import onnx  # noqa: F401  (torch.onnx needs it, and would complain less clearly)

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated, but needs no further package and takes a second, not ten.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(model, (example,), buffer, dynamo=False, opset_version=17)
    return buffer.getvalue()
