"""ncnn, float32 with its Winograd and packed layouts on; converted by pnnx."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

PACKAGES = ("ncnn", "pnnx")


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    import ncnn

    if example.shape[0] != 1:
        raise ValueError(f"ncnn runs one image at a time, and the batch is {example.shape[0]}")
    param, weights = convert(model, example, Path(directory))
    net = ncnn.Net()
    net.opt.num_threads = threads
    for name in dir(net.opt):
        if name.startswith(("use_fp16", "use_bf16", "use_int8")):
            setattr(net.opt, name, False)
    net.opt.openmp_blocktime = 0
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise RuntimeError(f"ncnn cannot load what pnnx made of the model ({param.name})")
    inputs, outputs = net.input_names(), net.output_names()
    image = ncnn.Mat(example[0].contiguous().numpy()).clone()

    def call():
        extractor = net.create_extractor()
        extractor.input(inputs[0], image)
        found = []
        for name in outputs:
            code, value = extractor.extract(name)
            if code:
                raise RuntimeError(f"ncnn failed with code {code} at output {name}")
            found.append(value)
        return found

    return call


def convert(model: nn.Module, example: Tensor, directory: Path) -> tuple[Path, Path]:
    import pnnx

    script, param, weights = (directory / name for name in ("ncnn.pt", "ncnn.param", "ncnn.bin"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what pnnx reads
        torch.jit.trace(model, example, check_trace=False).save(str(script))
    shape = "inputshape=[" + ",".join(map(str, example.shape)) + "]"
    # The program itself: its Python wrapper would also execute the Python file that it writes.
    command = [
        pnnx.EXEC_PATH,
        script.name,
        shape,
        "fp16=0",
        f"ncnnparam={param.name}",
        f"ncnnbin={weights.name}",
    ]
    subprocess.run(command, cwd=directory, check=True)
    if not param.exists():
        raise RuntimeError("pnnx did not convert the model")
    return param, weights
