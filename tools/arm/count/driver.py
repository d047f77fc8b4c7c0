"""Runs inside the emulated Python: one convolution or one network, between marks that the plugin sees.

driver.py ENGINE CASES.npz    ENGINE is semisparse, torch, onnxruntime or ncnn
driver.py network SIZE FILE...     saved networks, by semisparse.runtime; SIZE where theirs is free
"""

from __future__ import annotations

import ctypes
import sys
import tempfile

import numpy as np

_LIBC = ctypes.CDLL(None)


def mark(what: int, tag: int = 0) -> None:
    _LIBC.syscall(ctypes.c_long(5000), ctypes.c_long(what), ctypes.c_long(tag))


def measure(tag: int, call) -> np.ndarray:
    """The second run is counted: the first one prepares weights and memory."""
    call()
    mark(0)
    result = call()
    mark(1, tag)
    return result


def semisparse_call(x, weight, mask):
    from semisparse import _core, runtime

    runtime.set_num_threads(1)
    packed = _core.PackedWeight(runtime.pack_weight(weight))
    pair = (weight.shape[2] // 2,) * 2
    out = np.empty((1, weight.shape[0], *x.shape[2:]), np.float32)
    mask = None if mask.all() else mask
    return _core.Conv2dCall(x, packed, None, (1, 1), pair, (1, 1), 1, mask, None, "none", None, out)


def torch_call(x, weight, mask):
    import torch

    torch.set_num_threads(1)
    x, weight = torch.from_numpy(x), torch.from_numpy(weight)

    def call():
        with torch.inference_mode():
            return torch.nn.functional.conv2d(x, weight, padding=weight.shape[2] // 2).numpy()

    return call


def onnxruntime_call(x, weight, mask):
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    pad = [weight.shape[2] // 2] * 4
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=weight.shape[2:], pads=pad)
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    graph = helper.make_graph([node], "g", shapes[:1], shapes[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return lambda: session.run(None, {"x": x})[0]


def ncnn_call(x, weight, mask):
    import ncnn

    folder = tempfile.mkdtemp()
    filters, size = weight.shape[0], weight.shape[2]
    with open(folder + "/net.param", "w") as file:
        file.write("7767517\n2 2\nInput x 0 1 x\n")
        file.write(f"Convolution y 1 1 x y 0={filters} 1={size} 4={size // 2} 5=0 6={weight.size}\n")
    with open(folder + "/net.bin", "wb") as file:
        file.write(bytes(4) + weight.tobytes())  # a tag: float32
    net = ncnn.Net()
    net.opt.num_threads = 1
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, half, False)  # float32, as the others
    net.load_param(folder + "/net.param")
    net.load_model(folder + "/net.bin")
    image = ncnn.Mat(x[0])

    def call():
        extractor = net.create_extractor()
        extractor.input("x", image)
        return extractor.extract("y")[1]

    return call


def main(engine: str, paths: list[str]) -> None:
    if engine == "network":
        from semisparse import runtime

        runtime.set_num_threads(1)
        for tag, path in enumerate(paths[1:]):
            network = runtime.load(path)
            free = (1, 3, int(paths[0]), int(paths[0]))
            shape = [a or b for a, b in zip(network.inputs[0].shape, free, strict=True)]
            x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            measure(tag, lambda: network(x))  # noqa: B023  called at once
        return
    cases = np.load(paths[0])
    for tag in range(int(cases["count"])):
        x, weight, mask, expected = (cases[f"{tag}.{name}"] for name in ("x", "weight", "mask", "y"))
        if engine != "semisparse" and not (mask.all() and weight.all()):
            continue  # no engine gets faster by sparsity, or knows of columns
        result = np.asarray(measure(tag, globals()[f"{engine}_call"](x, weight, mask)))
        error = np.abs(result.reshape(expected.shape) - expected).max() / np.abs(expected).max()
        assert error < 1e-3, f"{engine} computes something else: {error}"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
