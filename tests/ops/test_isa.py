"""Every instruction set that this machine has gets the operator tests, in a process of its own:
SEMISPARSE_ISA is read when the library is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semisparse import runtime

HERE = Path(__file__).parent


def available():
    info = runtime.cpu_info()
    features = set(info["features"])
    names = ["scalar"]
    if {"avx2", "fma"} <= features:
        names.append("avx2")
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= features:
        names.append("avx512")
    if info["architecture"] == "aarch64":
        names.append("neon")
    return names


def in_use(isa):
    return runtime.kernel_name().endswith("_" + isa)


def python(isa, *command, scale="0.15"):
    environment = os.environ | {"SEMISPARSE_ISA": isa, "SEMISPARSE_TEST_SCALE": scale, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


@pytest.mark.skipif("SEMISPARSE_ISA" in os.environ, reason="already inside such a process")
@pytest.mark.parametrize("isa", available())
def test_operator_tests_on(isa):
    if in_use(isa):
        pytest.skip("the other tests run on it")
    tests = [
        str(HERE / name)
        for name in (
            "test_conv2d.py",
            "test_half.py",
            "test_linear.py",
            "test_max_pool.py",
            "test_threads.py",
        )
    ]
    result = python(isa, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    name = python(isa, "-c", "from semisparse import runtime; print(runtime.kernel_name())").stdout.strip()
    assert name.endswith("_" + isa)


def test_an_instruction_set_that_is_missing_is_an_error_in_words():
    missing = "neon" if "neon" not in available() else "avx512"
    code = "import torch, semisparse; x = torch.ones(1, 1, 3, 3); torch.ops.semisparse.conv2d(x, x)"
    for name in (missing, "no-such-isa"):
        result = python(name, "-c", code)
        assert result.returncode == 1
        assert "SEMISPARSE_ISA" in result.stderr and name in result.stderr and "scalar" in result.stderr
