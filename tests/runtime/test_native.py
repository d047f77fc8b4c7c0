"""A wheel of another machine, of another Python, or none at all: said in words."""

import platform
import sys

import pytest

from semisparse import _native

MACHINE = platform.machine()
PYTHON = "".join(map(str, sys.version_info[:2]))


@pytest.mark.parametrize(
    "files, message",
    [
        ([], "has not been built"),
        ([f"_core.cpython-{PYTHON}-sparc64-linux-gnu.so"], "on sparc64, and this is CPython"),
        (
            [f"_core.cpython-399-{platform.machine()}-linux-gnu.so"],
            f"CPython 3.99 on {platform.machine()}, and this",
        ),
        ([f"_core.cpython-{PYTHON}-{MACHINE}-linux-gnu.so"], "it is there, but GLIBC too old"),
    ],
)
def test_explanation(tmp_path, files, message):
    for name in files:
        (tmp_path / name).touch()
    text = _native.explain(ImportError("GLIBC too old"), tmp_path)
    assert message in text and "pip install" in text
