"""Files made on one architecture give the same on another (`golden`); tools/arm/test.sh carries them over."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import check, make

import semisparse as ss


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """This machine's files; kept for the other one where SEMISPARSE_GOLDEN_WRITE names a directory."""
    directory = os.environ.get("SEMISPARSE_GOLDEN_WRITE")
    directory = Path(directory) if directory else tmp_path_factory.mktemp("golden")
    make(directory)
    return directory


@pytest.mark.arm
def test_own_files(own):
    assert check(own) < 2e-5


@pytest.mark.arm
def test_a_difference_is_found(own, tmp_path):
    arrays = dict(np.load(own / "arrays.npz"))
    arrays["kernels.y"] = arrays["kernels.y"] + np.float32(1e-3)
    np.savez(tmp_path / "arrays.npz", **arrays)
    with pytest.raises(AssertionError, match="kernels differs"):
        check(tmp_path)


@pytest.mark.arm
def test_files_of_another_architecture():
    directory = os.environ.get("SEMISPARSE_GOLDEN")
    if not directory:
        pytest.skip("SEMISPARSE_GOLDEN names no directory of another machine (tools/arm/test.sh does)")
    assert check(Path(directory)) < 2e-5
    arrays = np.load(Path(directory) / "arrays.npz")
    with torch.inference_mode():
        y = ss.load(Path(directory) / "network.safetensors")(torch.from_numpy(arrays["network.x"])).numpy()
    assert np.abs(y - arrays["network.y"]).max() < 2e-5 * np.abs(arrays["network.y"]).max()
