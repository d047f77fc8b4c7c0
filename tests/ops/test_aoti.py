"""Ahead of time: Python makes an AOTInductor package, a C++ program without Python loads and runs it."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from semisparse._library import LIBRARY

HERE = Path(__file__).parent


class Network(torch.nn.Module):
    """Packed convolutions with a mask, fill, residual and activation, between operators of torch itself."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        weight = torch.randn(8, 8, 3, 3, generator=g)
        weight[torch.rand(weight.shape, generator=g) < 0.5] = 0
        self.register_buffer("packed", torch.ops.semisparse.pack_weight(weight))
        self.register_buffer("mask", torch.rand(12, 12, generator=g) < 0.7)
        self.register_buffer("fill", torch.randn(8, generator=g))
        self.register_buffer("stem", torch.randn(8, 3, 1, 1, generator=g))

    def forward(self, x):
        conv, shape = torch.ops.semisparse.conv2d.packed, [8, 8, 3, 3]
        x = torch.ops.semisparse.conv2d(x, self.stem)
        y = conv(x, self.packed, shape, self.fill, 1, 1, mask=self.mask, fill=self.fill, activation="relu")
        y = conv(y, self.packed, shape, padding=1, activation="silu", residual=x)
        return y.mean((2, 3))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(Network(), (torch.randn(2, 3, 12, 12),), dynamic_shapes=({0: batch},))
        path = tmp_path_factory.mktemp("aoti") / "network.pt2"
        # The wrapper's own speed does not matter here: no optimisation, no headers compiled for later.
        options = {"aot_inductor.compile_wrapper_opt_level": "O0", "aot_inductor.precompile_headers": False}
        found = torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=options
        )
        return Path(found)


def test_package_runs_in_python(package):
    compiled = torch._inductor.aoti_load_package(str(package))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 12, 12)
        torch.testing.assert_close(compiled(x), Network()(x), rtol=1e-5, atol=1e-5)


def test_package_runs_in_a_program_without_python(package, tmp_path):
    torch_directory = Path(torch.__file__).parent
    include, lib = torch_directory / "include", torch_directory / "lib"
    program = tmp_path / "run_package"
    subprocess.run(
        [
            "g++", "-std=c++20", "-O0", str(HERE / "aoti/main.cpp"), "-o", str(program), f"-I{include}",
            f"-I{include / 'torch/csrc/api/include'}", f"-L{lib}", "-Wl,--no-as-needed", "-ltorch",
            "-ltorch_cpu", "-lc10", "-ldl", f"-Wl,-rpath,{lib}",
        ],
        check=True,
    )  # fmt: skip
    x = torch.randn(3, 3, 12, 12)
    x.numpy().tofile(tmp_path / "input.bin")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    result = subprocess.run(
        [program, LIBRARY, package, tmp_path / "input.bin", tmp_path / "output.bin", "3", "3", "12", "12"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    y = torch.from_numpy(np.fromfile(tmp_path / "output.bin", dtype=np.float32)).reshape(3, 8)
    torch.testing.assert_close(y, Network()(x), rtol=1e-5, atol=1e-5)
