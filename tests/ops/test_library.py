"""Importing: in any order, without torch where it is not wanted, and with words where the library does not
fit."""

import subprocess
import sys

import pytest

from semisparse import _library


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "code",
    [
        "import torch, semisparse; torch.ops.semisparse.conv2d",
        "import semisparse, torch; torch.ops.semisparse.conv2d",
        "import semisparse.runtime, torch; torch.ops.semisparse.conv2d.packed",
        "import semisparse.ops; import torch; torch.ops.semisparse.conv2d",
        "import semisparse as ss; ss.ops.conv2d; import torch; torch.ops.semisparse.pack_weight",
        "from semisparse import ops; ops.conv2d",
    ],
)
def test_operators_are_there_after_both_imports(code):
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_numpy_runtime_does_not_import_torch():
    result = run(
        "import semisparse, semisparse.runtime as r, sys; r.kernel_name(); dir(semisparse); "
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    assert result.returncode == 0, result.stderr


def test_import_of_torch_alone_loads_nothing():
    result = run("import torch, sys; assert 'semisparse' not in sys.modules")
    assert result.returncode == 0, result.stderr


def test_unknown_attribute():
    result = run("import semisparse; semisparse.no_such_name")
    assert "module 'semisparse' has no attribute 'no_such_name'" in result.stderr


def test_registering_twice_does_nothing(ops):
    before = ops.conv2d
    _library.register()
    assert ops.conv2d is before


@pytest.fixture
def unregistered(monkeypatch):
    monkeypatch.setattr(_library, "_registered", False)


def test_missing_library(monkeypatch, unregistered, tmp_path):
    monkeypatch.setattr(_library, "LIBRARY", tmp_path / "libsemisparse_torch.so")
    with pytest.raises(RuntimeError, match=r"(?s)library is missing.*pip install --no-build-isolation"):
        _library.register()
    assert _library.built_for_torch() is None


def test_library_for_another_torch(monkeypatch, unregistered, tmp_path):
    import torch

    other = tmp_path / "libsemisparse_torch.so"
    other.write_bytes(b"\x7fELF..." + b"semisparse built for torch 1.4.2\0" + b"...")
    monkeypatch.setattr(_library, "LIBRARY", other)
    running = torch.__version__.split("+")[0]
    with pytest.raises(
        RuntimeError, match=rf"(?s)built for torch 1\.4\.2, but torch {running} is running.*pip install"
    ):
        _library.register()


def test_library_that_cannot_be_loaded(monkeypatch, unregistered, tmp_path):
    import torch

    broken = tmp_path / "libsemisparse_torch.so"
    version = torch.__version__.split("+")[0].encode()
    broken.write_bytes(b"not a library; semisparse built for torch " + version + b"\0")
    monkeypatch.setattr(_library, "LIBRARY", broken)
    with pytest.raises(RuntimeError, match=r"(?s)cannot be loaded by torch.*pip install"):
        _library.register()


def test_library_knows_what_it_was_built_for():
    import torch

    assert _library.built_for_torch() == torch.__version__.split("+")[0]


def test_operator_library_is_free_of_python():
    """A C++ program loads it; a reference to Python's or torch's Python symbols would keep it from doing
    so."""
    content = _library.LIBRARY.read_bytes()
    for name in (b"libtorch_python", b"libpython", b"PyEval_", b"PyGILState_", b"Py_IncRef", b"PyModule_"):
        assert name not in content
