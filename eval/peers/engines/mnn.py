"""MNN, CPU backend, float32, through its session interface."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from semisparse.eval.peers import onnx

PACKAGES = (*onnx.PACKAGES, "mnn")


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    import MNN
    import numpy as np

    path = Path(directory) / "model.mnn"
    convert(onnx.export(model, example, directory), path)
    interpreter = MNN.Interpreter(str(path))
    # "high" is float32 wherever "normal" would be float16 or bfloat16.
    session = interpreter.createSession({"backend": "CPU", "numThread": threads, "precision": "high"})
    image = example.contiguous().numpy()
    source = MNN.Tensor(tuple(example.shape), MNN.Halide_Type_Float, image, MNN.Tensor_DimensionType_Caffe)
    destination = interpreter.getSessionInput(session)
    outputs = interpreter.getSessionOutputAll(session)
    hosts = {
        name: MNN.Tensor(
            output.getShape(),
            MNN.Halide_Type_Float,
            np.empty(output.getShape(), np.float32),
            MNN.Tensor_DimensionType_Caffe,
        )
        for name, output in outputs.items()
    }

    def call():
        destination.copyFrom(source)
        interpreter.runSession(session)
        for name, output in outputs.items():
            output.copyToHostTensor(hosts[name])
        return [host.getNumpyData() for host in hosts.values()]

    return call


def convert(model: Path, output: Path) -> None:
    # The converter module directly: the console script installs packages and uploads usage logs.
    import _tools

    _tools.mnnconvert(
        ["mnnconvert", "-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(output), "--bizCode", "x"]
    )
    if not output.exists():
        raise RuntimeError("MNN's converter did not convert the model")
