"""Calls bound to arrays, and sequences of them: what plans are made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_concatenation_copies_what_is_not_there_yet():
    out = np.zeros((2, 5, 3), np.float32)
    for axis, sizes in [(0, (1, 1)), (1, (2, 3)), (-1, (1, 2))]:
        whole = normal(2, 5, 3)
        parts = np.split(whole, [sizes[0]], axis)
        assert np.array_equal(_core.ConcatenateCall(parts, axis, out)(), whole)
        inside = np.split(out, [sizes[0]], axis)  # views of the result: nothing is left to do
        inside[1][:] = 7
        _core.ConcatenateCall([parts[0], inside[1]], axis, out)()
        assert np.array_equal(inside[0], parts[0]) and (inside[1] == 7).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda x: _core.CombineCall(x, "modulo", x), "unknown arithmetic 'modulo'"),
        (lambda x: _core.CombineCall(x, "add", x[..., :2]), "cannot be broadcast"),
        (lambda x: _core.CombineCall(x, "add", x[0, 0].astype(int)), "`other` must be float32; got int64"),
        (lambda x: _core.CombineCall(x, "add", x, x[..., ::-1]), "C-contiguous"),
        (lambda x: _core.CombineCall(x[..., ::-1], "add", x, x), "must not share memory"),
        (lambda x: _core.ActivateCall(x, "tanh"), "tanh"),
        (lambda x: _core.SoftmaxCall(x, 4), "axis 4 of an array with 4 dimensions"),
        (lambda x: _core.SoftmaxCall(x[:, :0], 1), "softmax of no entries"),
        (lambda x: _core.AvgPool2dCall(x, [(0, 5)], [(0, 1)], 0), "pixels 0 to 5: expected .* of the 4"),
        (lambda x: _core.AvgPool2dCall(x, [(0, 1)], [(2, 2)], 0), "pixels 2 to 2"),
        (lambda x: _core.UpsampleNearest2dCall(x, [0, 4], [0]), "pixel 4: expected one of the 4"),
        (lambda x: _core.UpsampleNearest2dCall(x, [0], [-1]), "pixel -1"),
        (lambda x: _core.ConcatenateCall([x, x[0]], 0), "all other sizes must be the same"),
        (lambda x: _core.ConcatenateCall([], 0), "at least one array"),
        (lambda x: _core.ConcatenateCall([x, x], 0).rebind(x), "several inputs"),
        (lambda x: _core.CopyCall(x, np.empty((1, 2, 4, 5), np.float32)), "`out` must have shape"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(normal(1, 2, 4, 6))


@given(st.data())
def test_array_calls_read_views_of_any_strides(data):
    """Also when they are rebound to one, and when sizes are 0 or 1."""
    shape = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    base = normal(*(2 * size for size in shape))

    def view():
        halves = [st.sampled_from([(0, n), (n, None), (None, None, 2), (None, None, -2)]) for n in shape]
        x = base[tuple(slice(*data.draw(half)) for half in halves)]
        axes = data.draw(st.permutations(range(len(shape))))
        return np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes)) if axes[0] else x

    x, y = view(), view()
    other = y[tuple(slice(0, data.draw(st.sampled_from([1, None]))) for _ in shape)]
    add, copy = _core.CombineCall(x, "add", other), _core.CopyCall(x)
    relu = _core.ActivateCall(x, "relu")
    for a in (x, view()):
        for call in (add, copy, relu):
            call.rebind(a)
        assert np.array_equal(add(), a + other) and np.array_equal(copy(), a)
        assert np.array_equal(relu(), np.maximum(a, 0))
