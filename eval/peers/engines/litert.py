"""LiteRT (TensorFlow Lite) with its XNNPACK delegate; converted by litert-torch."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

PACKAGES = ("ai-edge-litert", "litert-torch")


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    path = Path(directory) / "model.tflite"
    litert_torch.convert(model, (example,)).export(str(path))
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    outputs = [output["index"] for output in interpreter.get_output_details()]
    image = example.contiguous().numpy()

    def call():
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return call
