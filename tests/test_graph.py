"""The JSON form of a graph: what is accepted, what is refused, and that torch is not needed for it."""

import json
import math
import subprocess
import sys

import pytest

from semisparse.graph import OPERATORS, Graph, Input, Node, Ref, Symbol, TensorRef, TensorSpec
from semisparse.layers import LayerRecord

GRAPH = Graph(
    inputs=(Input("x", "float32", (None, 3, 8, 8), (1, 3, 8, 8)),),
    tensors={"w": TensorSpec("uint8", (100,), 7), "c": TensorSpec("float32", ())},
    nodes=(
        Node(
            "conv",
            "semisparse.conv2d.packed",
            (Ref("x"), TensorRef("w"), [4, 3, 3, 3], None, [1, 1]),
            {"activation": "relu"},
        ),
        Node("size", "aten.sym_size.int", (Ref("conv"), 0)),
        Node("low", "aten.clamp.default", (Ref("conv"), -math.inf, 1.5)),
        Node("new", "aten.zeros.default", ([Ref("size"), 2],), {"dtype": Symbol("dtype", "float32")}),
        Node("sum", "aten.add.Tensor", (Ref("low"), TensorRef("c"))),
    ),
    output=(Ref("sum"), {"a": [Ref("new"), None, True, "text"]}),
    layers=(
        LayerRecord("conv", "conv2d", "conv", (4, 3, 3, 3), output_size=(8, 8), packed=True, notes=("n",)),
    ),
)


def test_round_trip():
    text = GRAPH.to_json("test")
    assert Graph.from_json(text) == GRAPH
    assert json.loads(text)["version"] == 1


def test_graph_module_needs_neither_torch_nor_numpy():
    code = (
        "from semisparse.graph import Graph; import sys\n"
        "print(len(Graph.from_json(sys.stdin.read()).nodes), 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], input=GRAPH.to_json("test"), capture_output=True, text=True
    )
    assert result.stdout.strip() == "5 False False", result.stderr


def test_vocabulary_holds_operators_of_this_torch_and_nothing_that_writes():
    torch = pytest.importorskip("torch")
    import semisparse.ops  # noqa: F401
    from semisparse.converted import resolve

    for name in OPERATORS:
        function = resolve(name)
        assert not (isinstance(function, torch._ops.OpOverload) and function._schema.is_mutable), name


def edit(path, value):
    """The document with one entry replaced, or removed if `value` is ..."""
    document = json.loads(GRAPH.to_json("test"))
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    "path, value, message",
    [
        (["format"], "other", "format is 'other', expected 'semisparse-graph'"),
        (["version"], 2, "format version 2.*install a newer semisparse"),
        (["version"], 0, "version is 0"),
        (["version"], "1", "version is '1', expected an integer"),
        (["version"], True, "version is True, expected an integer"),
        (["nodes"], ..., "keys"),
        (["extra"], 1, "keys"),
        (["nodes"], {}, "nodes is {}, expected a list"),
        (["nodes"], [1], "a node is 1, expected a JSON object"),
        (["nodes", 0, "op"], "os.system", "calls 'os.system', which is not in the vocabulary.*do not trust"),
        (["nodes", 0, "op"], "aten.from_file.default", "not in the vocabulary"),
        (["nodes", 0, "op"], "aten.relu_.default", "not in the vocabulary"),
        (["nodes", 0, "op"], "operator.setitem", "not in the vocabulary"),
        (["nodes", 0, "op"], ["aten.relu.default"], "not in the vocabulary"),
        (["nodes", 0, "name"], "import os; x", "named 'import os; x', expected letters"),
        (["nodes", 0, "name"], "lambda", "named 'lambda'"),
        (["nodes", 0, "name"], "self", "named 'self'"),
        (["nodes", 0, "name"], "_torch", "named '_torch'"),
        (["nodes", 0, "name"], "x", "'x' is defined twice"),
        (["nodes", 0, "name"], "\u00e4", "named"),
        (["nodes", 0, "args", 0], {"node": "sum"}, "refers to 'sum', which is no input and no earlier node"),
        (
            ["nodes", 0, "args", 0],
            {"node": "conv"},
            "refers to 'conv', which is no input and no earlier node",
        ),
        (["nodes", 0, "args", 0], {"node": ["x"]}, "no input and no earlier node"),
        (["nodes", 0, "args", 1], {"tensor": "v"}, "tensor 'v', which is not declared"),
        (["nodes", 0, "args", 1], {"code": "1"}, "which has no meaning"),
        (["nodes", 0, "args", 1], {"tuple": [1]}, "which has no meaning"),
        (["nodes", 0, "args", 1], {"dtype": "object"}, "which has no meaning"),
        (["nodes", 0, "args", 1], {"device": "cuda"}, "which has no meaning"),
        (["nodes", 0, "args", 1], {"node": "x", "tensor": "w"}, "expected one key"),
        (["nodes", 0, "args", 2, 0], 2**70, "exceeds 64 bits"),
        (["nodes", 0, "args"], [0] * 100, "a list of at most 64 items"),
        (["nodes", 0, "kwargs"], {"a b": 1}, "a keyword of node 'conv' is named 'a b'"),
        (["inputs", 0, "shape"], [None, -3, 8, 8], "a size from 0"),
        (["inputs", 0, "shape"], [1] * 9, "at most 8 items"),
        (["inputs", 0, "minimum"], [1], "4 sizes, but 1 minima"),
        (["inputs", 0, "dtype"], "float33", "'float33', expected one of"),
        (["tensors", "w", "shape"], [2**50], "a size from 0"),
        (["tensors", "w", "dtype"], None, "expected one of"),
        (["tensors", "w", "crc32"], "x", "expected an integer"),
        (["output"], {"node": "nowhere"}, "output refers to 'nowhere'"),
        (["layers", 0, "node"], "nowhere", "'nowhere', which does not exist"),
        (["layers", 0, "weight_shape"], "x", "'weight_shape' of a layer record"),
        (["layers", 0, "packed"], 1, "'packed' of a layer record"),
        (["layers", 0, "kind"], ..., "layer record must be an object with the keys"),
    ],
)
def test_refused(path, value, message):
    with pytest.raises(ValueError, match=message):
        Graph.from_json(edit(path, value))


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "1", '"x"', "[" * 100_000, '{"a":' * 100_000, '{"format": NaN}', "9" * 5000],
    ids=lambda text: text[:10],
)
def test_no_graph_at_all(text):
    with pytest.raises(ValueError):
        Graph.from_json(text)


def test_deep_nesting_is_refused():
    value = []
    for _ in range(50):
        value = [value]
    with pytest.raises(ValueError, match="nested more than"):
        Graph.from_json(edit(["nodes", 0, "args", 2], value))


def test_what_cannot_be_read_is_not_written():
    node = Node("y", "aten.relu_.default", (Ref("x"),))
    with pytest.raises(ValueError, match="node 'y' calls 'aten.relu_.default'.*cannot be saved"):
        Graph(GRAPH.inputs, {}, (node,), Ref("y")).to_json("test")
    node = Node("y", "aten.relu.default", (Ref("x"), object()))
    with pytest.raises(ValueError, match="argument of type object"):
        Graph(GRAPH.inputs, {}, (node,), Ref("y")).to_json("test")
