"""The module that runs a converted network: what else can be done with it."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn

import semisparse as ss
from semisparse import masking
from semisparse.converted import ConvertedModel
from semisparse.graph import Graph, Input, Node, Ref, TensorRef, TensorSpec

X = torch.randn(2, 2, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)
    )
    model[1].running_mean.normal_()
    masking.attach_column_mask(model[0], torch.rand(6, 8) > 0.3)
    return ss.convert(model, X)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(network, duplicate):
    other = duplicate(network)
    assert torch.equal(other(X), network(X))
    for buffer in other.buffers():
        buffer.zero_()
    assert not any(
        torch.equal(a, b) for a, b in zip(other.buffers(), network.buffers(), strict=True) if b.any()
    )


def test_state_dict(network):
    other = copy.deepcopy(network)
    for name, buffer in other.named_buffers():
        if name.endswith("bias"):
            buffer.zero_()
    assert not torch.equal(other(X), network(X))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(X), network(X))
    assert not list(network.parameters())


def test_inference_mode_no_grad_and_gradients(network):
    expected = network(X)
    for context in (torch.inference_mode(), torch.no_grad()):
        with context:
            assert torch.equal(network(X), expected)
    x = X.clone().requires_grad_()
    network(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_channels_last(network):
    torch.testing.assert_close(network(X.to(memory_format=torch.channels_last)), network(X))


def test_compile_whole_graph(network):
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        for batch in (1, 2, 3):
            x = X[:1].repeat(batch, 1, 1, 1)
            torch.testing.assert_close(compiled(x), network(x))


def test_export_again(network):
    program = torch.export.export(network, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.randn(5, 2, 6, 8)
    torch.testing.assert_close(program.module()(x), network(x))


def test_several_threads(network):
    inputs = [torch.randn(1, 2, 6, 8) for _ in range(8)]
    results = [None] * len(inputs)

    def run(i):
        with torch.inference_mode():
            results[i] = network(inputs[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, network(x)) for result, x in zip(results, inputs, strict=True))


def test_values_are_dropped_after_their_last_use(network):
    assert network.code.count("del ") == len(network.graph.nodes) - 1


def test_repr_says_what_it_is(network):
    assert "float32[*, 2, 6, 8]; 2 of 2 layers run by operators of semisparse" in repr(network)


@pytest.mark.parametrize(
    "value, message",
    [
        (X[:, :1], r"shape \(>=1, 2, 6, 8\), but it is \(2, 1, 6, 8\)"),
        (X[0], "resize the input, or convert"),
        (X.double(), r"float64; use x.to\(torch.float32\)"),
        (X.numpy(), "it is a ndarray"),
        (None, "it is a NoneType"),
    ],
)
def test_bad_inputs(network, value, message):
    with pytest.raises(ValueError, match=message):
        network(value)


def test_empty_batch(network):
    assert network(X[:0]).shape == (0, 4, 3, 4)


def graph(*nodes, output, tensors=None):
    return Graph((Input("x", "float32", (None,), (1,)),), tensors or {}, nodes, output)


def test_hand_made_graph():
    model = ConvertedModel(
        graph(
            Node("n", "aten.sym_size.int", (Ref("x"), 0)),
            Node("m", "operator.add", (Ref("n"), 1)),
            Node("y", "aten.add.Tensor", (Ref("x"), TensorRef("c")), {"alpha": 2}),
            Node("z", "aten.clamp.default", (Ref("y"), float("-inf"), float("inf"))),
            output={"y": Ref("z"), "m": Ref("m")},
            tensors={"c": TensorSpec("float32", ())},
        ),
        {"c": torch.tensor(3.0)},
    )
    result = model(torch.tensor([1.0, 2.0]))
    assert torch.equal(result["y"], torch.tensor([7.0, 8.0])) and result["m"] == 3


def test_graphs_that_do_not_fit_are_refused():
    relu = Node("y", "aten.relu.default", (Ref("x"),))
    declared = {"c": TensorSpec("float32", (2,))}
    with pytest.raises(ValueError, match="'c' is missing"):
        ConvertedModel(graph(relu, output=Ref("y"), tensors=declared), {})
    with pytest.raises(ValueError, match=r"float32 \(3,\), but declared as float32 \(2,\)"):
        ConvertedModel(graph(relu, output=Ref("y"), tensors=declared), {"c": torch.zeros(3)})
    with pytest.raises(ValueError, match="does not declare"):
        ConvertedModel(graph(relu, output=Ref("y")), {"c": torch.zeros(3)})
    with pytest.raises(ValueError, match="has no operator aten.no_such_thing.default"):
        ConvertedModel(graph(Node("y", "aten.no_such_thing.default", (Ref("x"),)), output=Ref("y")), {})
    with pytest.raises(ValueError, match="schema"):
        ConvertedModel(graph(Node("y", "aten.relu.default", ()), output=Ref("y")), {})
    for args in ((Ref("x"),), (Ref("x"), [1]), (1, 0), (Ref("x"), 0, 0), (Ref("x"), 1.0)):
        with pytest.raises(ValueError, match="calls operator.getitem with"):
            ConvertedModel(graph(Node("y", "operator.getitem", args), output=Ref("y")), {})
    with pytest.raises(ValueError, match="calls operator.mul with"):
        ConvertedModel(graph(Node("y", "operator.mul", ("text", 3)), output=Ref("y")), {})
    with pytest.raises(ValueError, match="not a valid name"):
        ConvertedModel(graph(Node("y;z", "aten.relu.default", (Ref("x"),)), output=Ref("x")), {})


def test_half_precision(network, tmp_path):
    half = copy.deepcopy(network).half()
    y = half(X.half())
    assert y.dtype == torch.float16
    assert torch.allclose(y.float(), network(X.half().float()), atol=5e-3)
    with pytest.raises(ValueError, match=r"float16 tensor.*float32; use x\.to\(torch\.float16\)"):
        half(X)
    ss.save(half, tmp_path / "half.safetensors")
    assert torch.equal(ss.load(tmp_path / "half.safetensors")(X.half()), y)
    with pytest.raises(ValueError, match=r"half precision.*save model\.float\(\)"):
        ss.runtime.load(tmp_path / "half.safetensors")
    assert half.float()(X).dtype == torch.float32
    with pytest.raises(ValueError, match=r"float32 or float16, not in bfloat16; use \.float"):
        half.to(torch.bfloat16)
