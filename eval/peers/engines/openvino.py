"""OpenVINO, CPU plugin, latency hint, float32 (its own default would be bfloat16 where the CPU has AMX)."""

from torch import Tensor, nn

from semisparse.eval.peers import onnx

PACKAGES = (*onnx.PACKAGES, "openvino")


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # the process is pinned already
    }
    compiled = openvino.Core().compile_model(onnx.export(model, example, directory), "CPU", settings)
    request, x = compiled.create_infer_request(), example.contiguous().numpy()
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)
