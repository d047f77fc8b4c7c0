"""Runs inside the emulated Python: one engine on files, each between marks that the plugin sees.

driver.py ENGINE FILE[:OPTION]...   the n-th file is region n; beside it lie x.npy and FILE.npy, the output.
An option of float16 is half precision, where the engine has arithmetic for it.
The number of each that ran and computed the right thing is printed.
"""

from __future__ import annotations

import ctypes
import os
import sys

import numpy as np

_LIBC = ctypes.CDLL(None)
_WARM_UP = 2  # prepares weights and memory; torch's interpreter optimises in its second call
# Of the largest output: what tells another result from another algorithm. MNN's Winograd tiles are large.
_TOLERANCE = 1e-3
_COARSE = {"mnn": 5e-3}
_HALF = {"semisparse": 1e-2, "mnn": 0.1, "ncnn": 0.1}  # theirs is Winograd in half precision: 0.04 and 0.06


def mark(what: int, tag: int = 0) -> None:
    _LIBC.syscall(ctypes.c_long(5000), ctypes.c_long(what), ctypes.c_long(tag))


def semisparse(path: str, option: str, x: np.ndarray):
    if option == "float16":  # the numpy runtime has float32 only: through torch's operators
        import torch

        import semisparse

        torch.set_num_threads(1)
        model, image = semisparse.load(path).half(), torch.from_numpy(x).half()

        def call():
            with torch.inference_mode():
                return model(image)

        return call
    from semisparse import _core, runtime

    runtime.set_num_threads(1)
    _core.force_algorithm(option or "automatic")
    network = runtime.load(path)
    return lambda: network(x)


def torch(path: str, option: str, x: np.ndarray):
    import torch

    torch.set_num_threads(1)
    layout = torch.channels_last if option == "channels_last" else torch.contiguous_format
    model = torch.jit.load(path).to(memory_format=layout)
    image = torch.from_numpy(x).contiguous(memory_format=layout)

    def call():
        with torch.inference_mode():
            return model(image)

    return call


def onnxruntime(path: str, option: str, x: np.ndarray):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def ncnn(path: str, option: str, x: np.ndarray):
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    for name in dir(net.opt):  # float32, as the others; its Winograd stays on
        if name.startswith(("use_fp16", "use_bf16", "use_int8")):
            setattr(net.opt, name, option == "float16" and name.startswith("use_fp16"))
    if net.load_param(path) or net.load_model(os.path.splitext(path)[0] + ".bin"):
        raise RuntimeError(f"ncnn cannot load {path}")
    inputs, outputs = net.input_names(), net.output_names()
    image = ncnn.Mat(x[0]).clone()

    def call():
        extractor = net.create_extractor()
        extractor.input(inputs[0], image)
        return [extractor.extract(name)[1] for name in outputs]

    return call


def mnn(path: str, option: str, x: np.ndarray):
    import MNN

    interpreter = MNN.Interpreter(path)
    # "high" is float32 wherever "normal" would be float16.
    precision = "low" if option == "float16" else "high"
    session = interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": precision})
    caffe = MNN.Tensor_DimensionType_Caffe
    source = MNN.Tensor(x.shape, MNN.Halide_Type_Float, x, caffe)
    destination = interpreter.getSessionInput(session)
    hosts = {
        name: MNN.Tensor(
            output.getShape(), MNN.Halide_Type_Float, np.empty(output.getShape(), np.float32), caffe
        )
        for name, output in interpreter.getSessionOutputAll(session).items()
    }
    outputs = interpreter.getSessionOutputAll(session)

    def call():
        destination.copyFrom(source)  # a run may reuse its input's memory
        interpreter.runSession(session)
        for name, output in outputs.items():
            output.copyToHostTensor(hosts[name])
        return [host.getNumpyData() for host in hosts.values()]

    return call


def openvino(path: str, option: str, x: np.ndarray):
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)


def first(output) -> np.ndarray:
    """The first array in what an engine returned."""
    if hasattr(output, "keys"):
        output = list(output.values())
    return first(output[0]) if isinstance(output, (list, tuple)) else np.array(output)


def main(engine: str, runs: list[str]) -> None:
    for tag, run in enumerate(runs):
        path, _, option = run.partition(":")
        x = np.load(os.path.join(os.path.dirname(path), "x.npy"))
        call = globals()[engine](path, option, x)
        for _ in range(_WARM_UP):
            call()
        mark(0)
        result = call()
        mark(1, tag)
        result, expected = first(result), np.load(path + ".npy")
        if result.size != expected.size:
            raise RuntimeError(f"{engine} returns shape {result.shape}, expected {expected.shape}")
        error = np.abs(result.reshape(expected.shape) - expected).max() / np.abs(expected).max()
        if not error < (_HALF[engine] if option == "float16" else _COARSE.get(engine, _TOLERANCE)):
            raise RuntimeError(f"{engine} computes something else: it differs by {error:.1e}")
        print(tag, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
