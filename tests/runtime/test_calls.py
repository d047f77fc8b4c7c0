"""Calls bound to arrays, and sequences of them: what plans are made of."""

import numpy as np
import pytest

from semisparse import _core, runtime

G = np.random.default_rng(0)


def normal(*shape):
    return G.standard_normal(shape, dtype=np.float32)


def pool(x, out=None):
    return _core.MaxPool2dCall(x, (2, 2), (2, 2), (0, 0), (1, 1), False, out)


def test_a_sequence_makes_its_calls_in_order_on_the_present_values():
    weight = runtime.PackedWeight(runtime.pack_weight(normal(4, 3, 3, 3)))
    features = runtime.PackedWeight(runtime.pack_weight(normal(5, 4)))
    x, y = normal(2, 3, 4, 4), np.empty((2, 4, 4, 4), np.float32)
    z, logits = np.empty((2, 4, 1, 1), np.float32), np.empty((2, 5), np.float32)
    calls = [
        _core.Conv2dCall(x, weight, None, (1, 1), (1, 1), (1, 1), 1, None, None, "relu", None, y),
        _core.MaxPool2dCall(y, (4, 4), (4, 4), (0, 0), (1, 1), False, z),
        _core.LinearCall(z.reshape(2, 4), features, None, "none", logits),
    ]
    assert all(call.reads_in_place for call in calls)
    sequence = _core.Sequence(calls)
    del calls  # it keeps them
    for _ in range(2):
        x[:] = normal(*x.shape)
        sequence()
        assert np.array_equal(y, runtime.conv2d(x, weight, padding=1, activation="relu"))
        assert np.array_equal(logits, runtime.linear(y.max((2, 3)), features))
    _core.Sequence([])()


def test_rebinding():
    x = normal(1, 2, 4, 6)
    call = pool(x)
    for other in (normal(1, 2, 4, 6), normal(1, 4, 6, 2).transpose(0, 3, 1, 2), -x[..., ::-1]):
        call.rebind(other)
        assert np.array_equal(call(), runtime.max_pool2d(other, 2))
    call.rebind(None)
    with pytest.raises(ValueError, match="no input at present"):
        call()
    for wrong, message in [(normal(1, 2, 4, 8), r"\(1, 2, 4, 6\); got float32"), (x.astype(int), "int64")]:
        with pytest.raises(ValueError, match=message):
            call.rebind(wrong)


def test_rebinding_of_linear_layers():
    weight = runtime.PackedWeight(runtime.pack_weight(normal(5, 4)))
    call = _core.LinearCall(normal(3, 4), weight, None, "none", None)
    for other in (normal(3, 4), normal(4, 3).T):
        call.rebind(other)
        assert np.array_equal(call(), runtime.linear(other, weight))
    call.rebind(None)
    with pytest.raises(ValueError, match="no input at present"):
        call()
    with pytest.raises(ValueError, match=r"must have shape \(3, 4\)"):
        call.rebind(normal(4, 3))


def test_a_copied_input_is_told():
    assert pool(normal(1, 2, 4, 6)).reads_in_place
    assert not pool(normal(1, 2, 4, 6)[..., ::-1]).reads_in_place


def test_sequences_hold_calls_only():
    with pytest.raises(RuntimeError, match="cast"):
        _core.Sequence([1])
