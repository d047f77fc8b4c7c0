"""ONNX Runtime, CPU provider, all graph optimisations."""

from torch import Tensor, nn

from semisparse.eval.peers import onnx

PACKAGES = (*onnx.PACKAGES, "onnxruntime")


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Its idle threads would otherwise keep a core busy while something else is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = onnx.export(model, example, directory)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: example.contiguous().numpy()}
    return lambda: session.run(None, feed)
