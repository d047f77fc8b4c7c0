"""Every operator of the numpy runtime against PyTorch's own, inside a graph: first on the input itself, then
on a computed value in planned memory, and with a second input, which must not meet anything left over from
the first."""

import numpy as np
import pytest
import torch

from semisparse import runtime
from semisparse.container import Contents
from semisparse.converted import ConvertedModel
from semisparse.graph import Graph, Input, Node, Ref, Symbol, TensorRef, TensorSpec
from semisparse.runtime.operators import COMPUTE, VALUES, VIEWS

IMAGE = (2, 8, 6, 10)
G = np.random.default_rng(0)
FLOAT = Symbol("dtype", "float32")
INT = Symbol("dtype", "int64")
CPU = {"device": Symbol("device", "cpu"), "pin_memory": False}


class Const:
    """A constant tensor of the graph."""

    def __init__(self, *shape, values=None):
        self.array = G.standard_normal(shape, dtype=np.float32) if values is None else np.asarray(values)


X = Ref("x")  # replaced by the value under test
ACTIVATED = dict(mask=Const(values=G.random((6, 10)) < 0.6), fill=Const(8), activation="silu", residual=X)
VARIANCE = Const(values=G.random(8, dtype=np.float32))
MATRIX = Const(values=runtime.pack_weight(G.standard_normal((5, 10, 1, 1), dtype=np.float32)))
PACKED = Const(values=runtime.pack_weight(G.standard_normal((8, 8, 3, 3), dtype=np.float32)))
CASES = {
    "semisparse.conv2d.packed": [
        ((X, PACKED, [8, 8, 3, 3], Const(8), [1, 1], [1, 1], [1, 1], 1), ACTIVATED),
        ((X, PACKED, [8, 8, 3, 3], None, 2), {}),
    ],
    "semisparse.conv2d.default": [((X, Const(8, 8, 3, 3), Const(8), [1, 1], [1, 1]), ACTIVATED)],
    "aten.conv2d.default": [((X, Const(6, 4, 3, 2), Const(6), [2, 1], [0, 1], [1, 2], 2), {}), ((X, X), {})],
    "aten.conv2d.padding": [
        ((X, Const(6, 8, 3, 5), None, [1, 1], "same", [2, 1]), {}),
        ((X, Const(6, 8, 3, 2), Const(6), [2, 1], "valid"), {}),
    ],
    "semisparse.linear.default": [
        ((X, MATRIX, [5, 10], Const(5)), {"activation": "silu"}),
        ((X, MATRIX, [5, 10]), {}),
    ],
    "aten.linear.default": [((X, Const(5, 10), Const(5)), {}), ((X, Const(5, 10)), {})],
    "aten.matmul.default": [((X, Const(10, 7)), {}), ((X, Const(10)), {}), ((X, Const(8, 10, 6)), {})],
    "aten.mm.default": [((Const(3, 4), Const(4, 5)), {})],
    "aten.bmm.default": [((Const(3, 4, 5), Const(3, 5, 6)), {})],
    "aten.addmm.default": [((Const(5), Const(3, 4), Const(4, 5)), {"beta": 0.5, "alpha": 2})],
    "semisparse.max_pool2d.default": [
        ((X, [3, 2], [2, 1], [1, 1]), {}),
        ((X, [2, 2], [3, 3], 0, 1, True), {}),
    ],
    "aten.max_pool2d.default": [((X, [3, 3]), {}), ((X, [2, 2], [], [1, 1], [2, 1]), {})],
    "aten.avg_pool2d.default": [
        ((X, [3, 2], [2, 2], [1, 1]), {}),
        ((X, [2, 2]), {}),
        ((X, [3, 3], [1, 2], [1, 1], False, False), {}),
        ((X, [3, 3], [1, 1], [1, 0], False, True, 5), {}),
    ],
    "aten.adaptive_avg_pool2d.default": [((X, [1, 1]), {}), ((X, [3, 5]), {}), ((X, [4, 7]), {})],
    "aten.upsample_nearest2d.vec": [
        ((X, None, [2.0, 3.0]), {}),
        ((X, [9, 13], None), {}),
        ((X, None, [1.5, 1.7]), {}),
    ],
    "aten.upsample_nearest2d.default": [((X, [12, 20]), {}), ((X, [9, 17], 1.5, 1.7), {})],
    "aten.upsample_bilinear2d.vec": [
        ((X, None, False, [2.0, 2.0]), {}),
        ((X, [9, 4], True, None), {}),
        ((X, None, False, [1.5, 1.7]), {}),
    ],
    "aten.upsample_bilinear2d.default": [((X, [3, 15], False), {}), ((X, [1, 20], True), {})],
    "aten.pixel_shuffle.default": [((X, 2), {})],
    "aten.hardtanh.default": [((X, -0.5, 0.25), {}), ((X,), {})],
    "aten.clamp.default": [((X, -0.5), {}), ((X, None, 0.5), {}), ((X, -0.3, 0.2), {})],
    "aten.clamp_min.default": [((X, 0.1), {})],
    "aten.clamp_max.default": [((X, 0.1), {})],
    "aten.leaky_relu.default": [((X, 0.1), {}), ((X,), {})],
    "aten.elu.default": [((X,), {}), ((X, 2.0, 0.5), {})],
    "aten.add.Tensor": [
        ((X, X), {}),
        ((X, Const(10)), {"alpha": 2}),
        ((X, 3), {}),
        ((Const(values=np.arange(6)), 1.5), {}),
    ],
    "aten.add.Scalar": [((X, 0.5), {})],
    "aten.sub.Tensor": [((X, Const(8, 1, 1)), {}), ((Const(values=np.arange(6)), Const(6)), {"alpha": 2})],
    "aten.sub.Scalar": [((X, 0.5), {})],
    "aten.rsub.Scalar": [((X, 0.5), {}), ((X, 1, 2), {})],
    "aten.mul.Tensor": [((X, X), {}), ((X, Const(2, 8, 1, 1)), {}), ((X, 2), {})],
    "aten.mul.Scalar": [((X, 0.5), {})],
    "aten.div.Tensor": [((X, Const(10)), {}), ((Const(values=np.arange(6)), 4), {})],
    "aten.div.Scalar": [((X, 3.0), {})],
    "aten.pow.Tensor_Scalar": [((X, 2), {}), ((X, 3.0), {})],
    "aten.minimum.default": [((X, Const(10)), {})],
    "aten.maximum.default": [((X, Const(10)), {})],
    "aten.batch_norm.default": [
        ((X, Const(8), Const(8), Const(8), VARIANCE, False, 0.1, 1e-5, False), {}),
        ((X, None, None, Const(8), VARIANCE, False, 0.1, 1e-3, False), {}),
    ],
    "aten.softmax.int": [((X, 1), {}), ((X, -1), {})],
    "aten._softmax.default": [((X, 2, False), {})],
    "aten.log_softmax.int": [((X, 1), {})],
    "aten.mean.default": [((X,), {})],
    "aten.mean.dim": [((X, [2, 3]), {}), ((X, [-1], True), {})],
    "aten.sum.default": [((X,), {})],
    "aten.sum.dim_IntList": [((X, [1]), {}), ((X, [2, 3], True), {})],
    "aten.amax.default": [((X, [1]), {}), ((X, [-1, -2], True), {})],
    "aten.amin.default": [((X, [1]), {})],
    "aten.cat.default": [(([X, X], 1), {}), (([X, Const(2, 8, 6, 3)], -1), {}), (([X, X],), {})],
    "aten.concat.default": [(([X, X], 1), {})],
    "aten.stack.default": [(([X, X], 1), {}), (([X, X], -1), {})],
    "aten.constant_pad_nd.default": [((X, [1, 2, 0, 3]), {}), ((X, [1, 0], 2.5), {})],
    "aten.pad.default": [
        ((X, [1, 2, 1, 1], "reflect"), {}),
        ((X, [2, 0, 0, 1], "replicate"), {}),
        ((X, [1, 1]), {}),
    ],
    "aten.repeat.default": [((X, [1, 2, 1, 3]), {}), ((X, [2, 1, 1, 1, 1]), {})],
    "aten.index_select.default": [((X, 1, Const(values=np.array([3, 0, 3]))), {})],
    "aten.to.dtype": [((X, INT), {}), ((Const(values=np.arange(3)), FLOAT), {})],
    "aten._to_copy.default": [((X,), {"dtype": INT})],
    "aten.to.dtype_layout": [((X,), {"dtype": INT})],
    "aten.view.default": [((X, [2, 8, 60]), {}), ((X, [16, -1]), {})],
    "aten.reshape.default": [((X, [2, 48, -1]), {})],
    "aten.flatten.using_ints": [((X, 1), {}), ((X, 2, 3), {}), ((X,), {})],
    "aten.unflatten.int": [((X, 1, [2, 4]), {}), ((X, -1, [-1, 5]), {})],
    "aten.squeeze.default": [((Const(2, 1, 3),), {})],
    "aten.squeeze.dim": [((Const(2, 1, 3), 1), {}), ((X, 0), {})],
    "aten.squeeze.dims": [((Const(2, 1, 3, 1), [1, 3]), {})],
    "aten.unsqueeze.default": [((X, 0), {}), ((X, -1), {})],
    "aten.permute.default": [((X, [0, 2, 3, 1]), {}), ((X, [0, -1, 1, 2]), {})],
    "aten.transpose.int": [((X, 1, -1), {})],
    "aten.t.default": [((Const(3, 4),), {})],
    "aten.expand.default": [((Const(8, 1, 1), [2, -1, 6, 10]), {})],
    "aten.slice.Tensor": [
        ((X, 1, 2, 6), {}),
        ((X, -1, 1, 9223372036854775807, 2), {}),
        ((X,), {}),
        ((X, 2, -3), {}),
    ],
    "aten.narrow.default": [((X, 1, 2, 3), {}), ((X, 3, -4, 2), {})],
    "aten.select.int": [((X, 1, 3), {}), ((X, -1, -2), {})],
    "aten.flip.default": [((X, [2, 3]), {})],
    "aten.full.default": [(([2, 3], 1.5), CPU), (([2], 3), {"dtype": FLOAT})],
    "aten.scalar_tensor.default": [((2.5,), {}), ((2,), {"dtype": INT})],
    "aten.zeros.default": [(([2, 3],), CPU)],
    "aten.ones.default": [(([2],), {"dtype": INT})],
    "aten.arange.default": [((5,), CPU), ((4,), {"dtype": FLOAT})],
    "aten.arange.start": [((2, 7), {}), ((0.5, 4), {})],
    "aten.arange.start_step": [((1, 9, 2), {"dtype": FLOAT})],
    "aten.full_like.default": [((X, 2), {})],
    "aten.new_full.default": [((X, [2, 3], 2.5), {})],
    "aten.zeros_like.default": [((X,), {})],
    "aten.new_zeros.default": [((X, [3]), {})],
    "aten.ones_like.default": [((X,), {"dtype": INT})],
    "aten.new_ones.default": [((X, [3]), {})],
}  # fmt: skip
LISTS = {  # operators that return several tensors: the one at the index is taken
    "aten.chunk.default": [((X, 3, 1), 2), ((X, 2, -1), 0)],
    "aten.split.Tensor": [((X, 3, 1), 2), ((X, 6, -1), 1)],
    "aten.split.sizes": [((X, [2, 5, 1], 1), 1)],
    "aten.split_with_sizes.default": [((X, [4, 6], 3), 1)],
    "aten.unbind.int": [((X, 1), 5), ((X,), 1)],
}
ONE_ARGUMENT = (
    "relu relu6 sigmoid silu mish hardsigmoid hardswish exp log sqrt tanh sin cos reciprocal neg abs floor "
    "ceil round square sign rsqrt clone contiguous"
)
CASES |= {f"aten.{name}.default": [((X,), {})] for name in ONE_ARGUMENT.split()}
SIZES = (
    "aten.sym_size.int",
    "aten.sym_numel.default",
    *(f"operator.{n}" for n in "add sub mul floordiv mod neg".split()),
)


def test_every_operator_is_tested_here():
    assert set(COMPUTE) | set(VIEWS) | set(VALUES) == {*CASES, *LISTS, *SIZES, "operator.getitem"}


def run(nodes, tensors, x, result):
    """The result of both runtimes for the input `x` and then, reusing what was planned, for -x."""
    arrays = {name: const.array for name, const in tensors.items()}
    specs = {name: TensorSpec(str(array.dtype), array.shape) for name, array in arrays.items()}
    graph = Graph((Input("x", "float32", (None,) * 4, (0,) * 4),), specs, tuple(nodes), (Ref(result),))
    ours = runtime.Network(Contents((graph,)), arrays)
    theirs = ConvertedModel(graph, {name: torch.from_numpy(array) for name, array in arrays.items()})
    for image in (x, -x, x):
        with torch.inference_mode():
            (expected,) = theirs(torch.from_numpy(image.copy()))
        (found,) = ours(image)
        assert isinstance(found, np.ndarray) and found.flags.c_contiguous
        assert (str(found.dtype), found.shape) == (str(expected.dtype)[6:], tuple(expected.shape))
        np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-5)


def one_operator(op, args, kwargs, value, index=None):
    """Nodes and constants of a graph that calls `op` on `value`."""
    tensors = {}

    def name(item):
        if isinstance(item, Const):
            tensors[f"t{len(tensors)}"] = item
            return TensorRef(f"t{len(tensors) - 1}")
        if isinstance(item, list):
            return [name(part) for part in item]
        return Ref(value) if item is X else item

    node = Node("y", op, tuple(map(name, args)), {key: name(item) for key, item in kwargs.items()})
    nodes = [node]
    if index is not None:
        nodes.append(Node("z", "operator.getitem", (Ref("y"), index), {}))
    return nodes, tensors, nodes[-1].name


PARAMETERS = [(op, args, kwargs, None) for op, calls in CASES.items() for args, kwargs in calls]
PARAMETERS += [(op, args, {}, index) for op, calls in LISTS.items() for args, index in calls]


@pytest.mark.parametrize(
    "op, args, kwargs, index", PARAMETERS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_operator(op, args, kwargs, index):
    x = G.standard_normal(IMAGE, dtype=np.float32)
    nodes, tensors, result = one_operator(op, args, kwargs, "x", index)
    run(nodes, tensors, x, result)
    before = Node("w", "aten.mul.Tensor", (Ref("x"), 1.5), {})
    after = Node("last", "aten.add.Tensor", (Ref(result), 1), {})
    nodes, tensors, result = one_operator(op, args, kwargs, "w", index)
    run([before, *nodes, after], tensors, x, "last")
    flipped = Node("w", "aten.permute.default", (Ref("v"), [0, 1, 2, 3]), {})
    run([Node("v", "aten.neg.default", (Ref("x"),), {}), flipped, *nodes, after], tensors, x, "last")


def test_shapes_are_values():
    nodes = [
        Node("h", "aten.sym_size.int", (Ref("x"), 2), {}),
        Node("n", "aten.sym_numel.default", (Ref("x"),), {}),
        Node("a", "operator.mul", (Ref("h"), 2), {}),
        Node("b", "operator.floordiv", (Ref("n"), Ref("h")), {}),
        Node("c", "operator.sub", (Ref("b"), Ref("a")), {}),
        Node("d", "operator.mod", (Ref("c"), 7), {}),
        Node("e", "operator.add", (Ref("d"), Ref("a")), {}),
        Node("f", "operator.neg", (Ref("e"),), {}),
        Node("y", "aten.mul.Tensor", (Ref("x"), Ref("f")), {}),
    ]
    run(nodes, {}, G.standard_normal(IMAGE, dtype=np.float32), "y")
