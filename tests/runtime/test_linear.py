"""Linear layers of the numpy runtime against plain numpy."""

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


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_call_matches_numpy(data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    out, inputs = draw(st.integers(1, 80)), draw(st.integers(1, 200))
    block = draw(st.sampled_from([1, 4, 8]))
    used = rng.random(((out + block - 1) // block, inputs)) < draw(st.sampled_from([0.1, 0.4, 1.0]))
    weight = rng.standard_normal((out, inputs), dtype=np.float32) * used.repeat(block, 0)[:out]
    bias = rng.standard_normal(out, dtype=np.float32) if draw(st.booleans()) else None
    batch = draw(st.sampled_from([(), (1,), (0,), (3,), (9,), (2, 3)]))
    x = rng.standard_normal((*batch, inputs), dtype=np.float32)
    if draw(st.booleans()):
        x = x[..., ::-1]
    activation = draw(st.sampled_from(sorted(ACTIVATIONS)))
    packed = runtime.PackedWeight(runtime.pack_weight(weight))
    assert packed.shape == (out, inputs, 1, 1)
    y = runtime.linear(x, packed, bias, activation=activation)
    want = ACTIVATIONS[activation](
        x.astype(np.float64) @ weight.T.astype(np.float64) + (0 if bias is None else bias)
    )
    assert y.dtype == np.float32 and y.shape == want.shape and y.flags.c_contiguous
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)


W = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(input=np.zeros((2, 4))), "`input` must be float32.*float64"),
        (dict(input=np.zeros((2, 5), np.float32)), "4 features in its last dimension"),
        (dict(input=np.zeros((), np.float32)), "4 features in its last dimension"),
        (dict(weight=W), "`weight` must be a PackedWeight; got ndarray"),
        (dict(weight=runtime.PackedWeight(runtime.pack_weight(W[:, :, None, None], 1))), None),
        (
            dict(weight=runtime.PackedWeight(runtime.pack_weight(np.ones((3, 4, 1, 2), np.float32)))),
            r"\(3, 4, 1, 2\).*linear layer",
        ),
        (dict(bias=np.zeros(4, np.float32)), r"`bias` must have shape \(3,\)"),
        (dict(activation="gelu"), "gelu"),
    ],
)
def test_bad_calls(arguments, message):
    packed = runtime.PackedWeight(runtime.pack_weight(W))
    call = dict(input=np.zeros((2, 4), np.float32), weight=packed) | arguments
    if message is None:
        assert runtime.linear(**call).shape == (2, 3)
        return
    with pytest.raises(ValueError, match=message):
        runtime.linear(**call)


def test_results_go_where_they_are_wanted():
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((5, 4), (3, 4)))
    packed, out = runtime.PackedWeight(runtime.pack_weight(weight)), np.full((5, 3), np.nan, np.float32)
    assert runtime.linear(x, packed, out=out) is out
    np.testing.assert_allclose(out, x @ weight.T, rtol=1e-5, atol=1e-5)
    for wrong, message in [
        (np.empty((5, 4), np.float32), r"`out` must have shape \(5, 3\)"),
        (np.empty((3, 5), np.float32).T, "C-contiguous"),
        (x.reshape(-1)[:15].reshape(5, 3), "must not share memory"),
    ]:
        with pytest.raises(ValueError, match=message):
            runtime.linear(x, packed, out=wrong)


def test_packing_a_matrix_with_groups_is_refused():
    with pytest.raises(ValueError, match="no groups"):
        runtime.pack_weight(W, 2)
