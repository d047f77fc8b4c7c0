"""The numpy runtime against plain numpy in float64, without torch."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semisparse import runtime

ACTIVATIONS = {
    "none": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "relu6": lambda z: np.clip(z, 0, 6),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "hardswish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


def reference(x, w, bias, stride, padding, dilation, groups, mask, fill, activation, residual):
    """The formula with einsum over sliding windows."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    x = np.pad(x, ((0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])))
    kernel = w.shape[2:]
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    n, c, oh, ow = windows.shape[:4]
    windows = windows.reshape(n, groups, c // groups, oh, ow, *kernel)
    z = np.einsum("ngchwij,gocij->ngohw", windows, w.reshape(groups, -1, c // groups, *kernel))
    z = z.reshape(n, len(w), oh, ow)
    if bias is not None:
        z = z + bias[:, None, None]
    if mask is not None:
        z = np.where(mask, z, 0 if fill is None else fill[:, None, None])
    if residual is not None:
        z = z + residual
    return ACTIVATIONS[activation](z)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_call_matches_the_formula(data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    groups = draw(st.sampled_from([1, 1, 2, 5]))
    n, c, oc = draw(st.integers(0, 3)), groups * draw(st.integers(1, 6)), groups * draw(st.integers(1, 6))
    kernel = draw(st.sampled_from([(3, 3), (1, 1), (2, 5)]))
    stride, padding = draw(st.sampled_from([(1, 1), (2, 3)])), draw(st.sampled_from([(0, 0), (1, 1), (0, 2)]))
    dilation = draw(st.sampled_from([(1, 1), (2, 1)]))
    h, w = draw(st.integers(5, 20)), draw(st.integers(5, 20))
    weight = rng.standard_normal((oc, c // groups, *kernel), dtype=np.float32)
    weight[rng.random(weight.shape) < draw(st.sampled_from([0, 0.6, 1]))] = 0
    x = rng.standard_normal((n, c, h, w), dtype=np.float32)
    layout = draw(st.sampled_from(["C", "nhwc", "reversed", "sliced", "broadcast"]))
    if layout == "nhwc":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "reversed":
        x = x[:, ::-1, ::-1, ::-1]
    elif layout == "sliced":
        x = rng.standard_normal((n, c, 2 * h, w + 3), dtype=np.float32)[:, :, ::2, 2:-1]
    elif layout == "broadcast":
        x = np.broadcast_to(rng.standard_normal((c, 1, w), dtype=np.float32), (n, c, h, w))
    oh, ow = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip((h, w), padding, dilation, kernel, stride, strict=True)
    )

    def maybe(*shape):
        return rng.standard_normal(shape, dtype=np.float32) if draw(st.booleans()) else None

    bias, fill, residual = maybe(oc), maybe(oc), maybe(n, oc, oh, ow)
    mask = rng.random((oh, ow)) < 0.6 if draw(st.booleans()) else None
    activation = draw(st.sampled_from(list(ACTIVATIONS)))
    expected = reference(x, weight, bias, stride, padding, dilation, groups, mask, fill, activation, residual)
    options = dict(mask=mask, fill=fill, activation=activation, residual=residual)
    packed = runtime.PackedWeight(runtime.pack_weight(weight, groups))
    for y in (
        runtime.conv2d(x, weight, bias, stride, padding, dilation, groups, **options),
        runtime.conv2d(x, packed, bias, stride, padding, dilation, **options),
    ):
        assert y.dtype == np.float32 and y.flags.c_contiguous
        np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


def test_pack_weight_round_trip_and_description():
    weight = np.random.default_rng(0).standard_normal((6, 4, 3, 3), dtype=np.float32)
    weight[:, ::2] = 0
    packed = runtime.pack_weight(weight, 2)
    assert packed.dtype == np.uint8 and packed.ndim == 1
    assert np.array_equal(runtime.unpack_weight(packed), weight)
    info = runtime.inspect_packed(packed)
    assert info["shape"] == (6, 4, 3, 3) and info["groups"] == 2
    assert info["kernels"] == 12 and info["nonzeros"] == 108 and info["patterns"] == 1
    kept = runtime.PackedWeight(packed)
    assert kept.shape == (6, 4, 3, 3) and kept.groups == 2 and kept.nbytes == packed.nbytes
    packed[:] = 0  # it has a copy of its own
    assert np.array_equal(kept.unpack(), weight)


def test_same_bytes_and_values_as_the_torch_operators():
    torch = pytest.importorskip("torch")
    import semisparse.ops  # noqa: F401

    x, w = torch.randn(2, 8, 9, 11), torch.randn(8, 4, 3, 3)
    w[torch.rand_like(w) < 0.5] = 0
    packed = runtime.pack_weight(w.numpy(), 2)
    assert np.array_equal(packed, torch.ops.semisparse.pack_weight(w, 2).numpy())
    y = runtime.conv2d(x.numpy(), runtime.PackedWeight(packed), padding=1, activation="silu")
    other = torch.ops.semisparse.conv2d.packed(
        x, torch.from_numpy(packed), [8, 4, 3, 3], padding=1, groups=2, activation="silu"
    )
    assert np.array_equal(y, other.numpy())


X, W = np.zeros((1, 4, 6, 6), np.float32), np.zeros((8, 4, 3, 3), np.float32)
BAD = {
    "list": (lambda: runtime.conv2d([[1.0]], W), "`input` must be a numpy array.*list"),
    "dtype": (lambda: runtime.conv2d(X.astype(np.float64), W), "`input` must be float32.*float64.*astype"),
    "byte order": (lambda: runtime.conv2d(X.astype(">f4"), W), "`input` must be float32"),
    "dims": (lambda: runtime.conv2d(X[0], W), r"\(N, C, H, W\).*\(4, 6, 6\)"),
    "channels": (lambda: runtime.conv2d(X[:, :3], W), "3 channels.*expects 4"),
    "too small": (lambda: runtime.conv2d(X[:, :, :2], W), "2"),
    "weight dtype": (lambda: runtime.conv2d(X, W.astype(np.float16)), "`weight` must be float32"),
    "weight dims": (lambda: runtime.conv2d(X, W[0]), r"\(OC, IC/groups, KH, KW\)"),
    "no filter": (lambda: runtime.conv2d(X, W[:0]), "at least 1"),
    "bias": (lambda: runtime.conv2d(X, W, np.zeros(4, np.float32)), r"`bias` must have shape \(8,\).*\(4,\)"),
    "fill": (lambda: runtime.conv2d(X, W, fill=np.zeros((8, 1), np.float32)), "`fill` must have shape"),
    "mask shape": (
        lambda: runtime.conv2d(X, W, mask=np.ones((6, 6), bool)),
        r"`mask` must have shape \(4, 4\)",
    ),
    "mask dtype": (lambda: runtime.conv2d(X, W, mask=np.ones((4, 4), np.uint8)), "`mask` must be bool"),
    "residual": (lambda: runtime.conv2d(X, W, residual=X), r"`residual` must have shape \(1, 8, 4, 4\)"),
    "stride": (lambda: runtime.conv2d(X, W, stride=0), "stride"),
    "stride kind": (lambda: runtime.conv2d(X, W, stride=1.5), "`stride` must be whole numbers, got 1.5"),
    "stride length": (
        lambda: runtime.conv2d(X, W, stride=(1, 1, 1)),
        r"one number or \(vertical, horizontal\)",
    ),
    "padding": (lambda: runtime.conv2d(X, W, padding=-1), "`padding` must not be negative"),
    "padding huge": (lambda: runtime.conv2d(X, W, padding=2**62), "`padding` must not be negative"),
    "groups": (lambda: runtime.conv2d(X, W, groups=0), "`groups` must be at least 1"),
    "groups not dividing": (lambda: runtime.conv2d(X, W, groups=3), "groups=3"),
    "activation": (lambda: runtime.conv2d(X, W, activation="gelu"), "gelu.*relu6"),
    "packed dtype": (lambda: runtime.unpack_weight(np.zeros(80, np.int8)), "`packed` must be uint8"),
    "packed dims": (lambda: runtime.unpack_weight(np.zeros((2, 80), np.uint8)), "one-dimensional"),
    "foreign": (lambda: runtime.PackedWeight(np.zeros(80, np.uint8)), "SSPW"),
    "truncated": (lambda: runtime.PackedWeight(runtime.pack_weight(W)[:-1]), "truncated"),
    "other groups": (
        lambda: runtime.conv2d(X, runtime.PackedWeight(runtime.pack_weight(W)), groups=2),
        "`groups` is 2, but the weight was packed with groups = 1",
    ),
    "threads": (lambda: runtime.set_num_threads(0), "`threads` must be at least 1"),
    "many threads": (lambda: runtime.set_num_threads(10**6), "from 1 to 1024"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_words(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


def test_damaged_payload_is_refused_before_it_is_used():
    packed = runtime.pack_weight(np.ones((4, 4, 3, 3), np.float32))
    for position in range(64, packed.size, 7):
        damaged = packed.copy()
        damaged[position] ^= 4
        with pytest.raises(ValueError, match="damaged"):
            runtime.unpack_weight(damaged)
        with pytest.raises(ValueError, match="damaged"):
            runtime.conv2d(X, runtime.PackedWeight(damaged))


@pytest.fixture
def threads():
    before = runtime.get_num_threads()
    yield runtime.set_num_threads
    runtime.set_num_threads(before)


def test_results_do_not_depend_on_threads(threads):
    rng = np.random.default_rng(0)
    x, w = (
        rng.standard_normal((2, 16, 30, 30), dtype=np.float32),
        rng.standard_normal((16, 16, 3, 3), dtype=np.float32),
    )
    packed, results = runtime.PackedWeight(runtime.pack_weight(w)), []
    for count in (1, 2, 4):
        threads(count)
        assert runtime.get_num_threads() == count
        results.append(runtime.conv2d(x, packed, padding=1))
    assert all(np.array_equal(results[0], r) for r in results)


def test_calls_from_several_python_threads(threads):
    threads(2)
    rng = np.random.default_rng(0)
    x, w = (
        rng.standard_normal((1, 8, 20, 20), dtype=np.float32),
        rng.standard_normal((8, 8, 3, 3), dtype=np.float32),
    )
    packed = runtime.PackedWeight(runtime.pack_weight(w))
    expected, failures = runtime.conv2d(x, runtime.PackedWeight(runtime.pack_weight(w))), []

    def work():
        for _ in range(50):
            if not np.array_equal(runtime.conv2d(x, packed), expected):
                failures.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_a_forked_child_makes_threads_of_its_own():
    code = """
import os, numpy as np
from semisparse import runtime
runtime.set_num_threads(2)
x, w = np.ones((1, 8, 40, 40), np.float32), np.ones((8, 8, 3, 3), np.float32)
y = runtime.conv2d(x, w)
if (child := os.fork()) == 0:
    os._exit(0 if np.array_equal(runtime.conv2d(x, w), y) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    if hasattr(os, "fork"):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_cpu_info():
    info = runtime.cpu_info()
    assert set(info) == {"architecture", "name", "features", "l1_bytes", "l2_bytes"}
    assert runtime.kernel_name().startswith("row_run_")
