"""`explain`: what the table says follows from the network and from the times that were measured."""

import json

import pytest
import torch
from torch import nn

import semisparse as ss
from semisparse import explain as explain_function
from semisparse.algorithms import ALGORITHMS, forced
from semisparse.explain import Explanation, LayerExplanation, _why
from semisparse.masking import attach_column_mask
from semisparse.stepwise import Stepwise, input_sizes, time_steps


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    ).eval()
    with torch.no_grad():
        model[2].weight[:, 4:] = 0
    attach_column_mask(model[4], torch.arange(144).view(12, 12) % 4 != 0)
    example = torch.randn(1, 3, 24, 24)
    return ss.convert(model, example), example


def test_every_layer_is_explained(network):
    fast, example = network
    found = ss.explain(fast, example, threads=1, rounds=2)
    assert [layer.name for layer in found.layers] == ["0", "2", "4", "7"]
    stem, weights, columns, head = found.layers
    assert (stem.density, stem.sparse) == (1, False) and "nothing removed" in stem.notes
    assert weights.density == pytest.approx(0.25) and weights.scheme == "structured" and weights.sparse
    assert columns.columns == pytest.approx(0.25) and columns.density == pytest.approx(0.75)
    assert not head.sparse
    assert all(layer.algorithm in ALGORITHMS for layer in found.layers[:3])
    assert sum(layer.share for layer in found.layers) + found.ms_other / found.ms == pytest.approx(1)
    assert found.threads == 1
    for layer in found.layers:
        assert layer.ms > 0 and layer.ms_dense > 0
        assert layer.packing is None or 0 <= layer.packing <= 1
    assert weights.packing is not None
    assert 0 < found.coverage < 1
    json.dumps(found.as_dict())


def test_forced_algorithm_is_shown(network):
    fast, example = network
    for name in ("im2col", "winograd4", "winograd2"):
        with forced(name):
            found = ss.explain(fast, example, rounds=1)
        assert found.layers[2].algorithm == name
        assert not found.layers[0].algorithm.startswith("winograd")  # stride 2


def test_explaining_changes_nothing(network):
    fast, example = network
    threads, before = torch.get_num_threads(), fast(example)
    chosen = [layer.algorithm for layer in ss.explain(fast, example, threads=1, rounds=1).layers]
    again = [layer.algorithm for layer in ss.explain(fast, example, threads=1, rounds=1).layers]
    assert chosen == again
    assert torch.get_num_threads() == threads
    assert torch.equal(fast(example), before)


def test_sizes_are_those_of_the_input_given():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), nn.Conv2d(8, 8, 3)
    )
    fast = ss.convert(model, torch.randn(1, 3, 20, 20))
    for side in (20, 33):
        x = torch.randn(1, 3, side, side)
        found = ss.explain(fast, x, rounds=1)
        assert found.layers[0].output_size == tuple(model[0](x).shape[2:])
        assert found.layers[1].output_size == tuple(model(x).shape[2:])


def test_text_is_a_table_with_reasons():
    layer = LayerExplanation(
        "a", "conv2d", (32, 32, 3, 3), (7, 7), "pattern", 0.3, 0.31, "winograd4", 1.0, 1.1, 0.5, 0.4, ("so",)
    )
    other = LayerExplanation(
        "b", "linear", (5, 32), (), "dense", 0, 1, "torch", 0.5, 0.5, 0.25, None, ("so",)
    )
    found = Explanation((layer, other), ms=2.0, ms_dense=3.0, ms_other=0.5, threads=2)
    lines = str(found).splitlines()
    assert lines[0].split()[:4] == ["layer", "weight", "output", "scheme"]
    assert "pattern, columns 30%" in lines[2] and "1.10" in lines[2] and "50%" in lines[2]
    assert lines[4].split() == ["(other)", "0.500", "25%"]
    assert lines[5].split() == ["total", "3.000", "2.000", "1.50"]
    assert lines[6] == "so: a, b"
    assert lines[7].startswith("2.000 ms on 2 thread(s), 3.000 ms if it were dense; 50% of the time")


def test_reasons_follow_from_what_was_measured():
    def layer(**changes):
        values = dict(
            name="a", kind="conv2d", weight_shape=(32, 32, 3, 3), output_size=(56, 56), scheme="pattern",
            columns=0.0, density=0.25, algorithm="im2col", ms=1.0, ms_dense=4.0, share=0.5, packing=0.1,
            notes=(),
        )  # fmt: skip
        return LayerExplanation(**(values | changes))

    assert _why(layer()) == []
    assert _why(layer(density=1.0)) == ["nothing removed"]
    assert _why(layer(algorithm="torch")) == ["run densely by torch"]
    assert _why(layer(ms_dense=1.5)) == ["1.50x of at most 4.00x"]
    assert "Winograd" in _why(layer(ms_dense=1.5, algorithm="winograd4"))[0]
    assert "packing" in _why(layer(ms_dense=1.5, packing=0.5))[0]
    assert "few columns" in _why(layer(ms_dense=1.5, output_size=(7, 7)))[0]


def test_models_of_several_sizes_are_explained_at_the_input_s(network):
    fast, example = network
    both = ss.SizedModel([fast, ss.convert(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 9, 9), free_size=False)])
    assert len(ss.explain(both, torch.randn(1, 3, 9, 9), rounds=1).layers) == 1
    assert len(ss.explain(both, example, rounds=1).layers) == 4


def test_bad_arguments_are_refused(network):
    fast, example = network
    with pytest.raises(ValueError, match="takes a converted model, and this is a Conv2d"):
        ss.explain(nn.Conv2d(3, 4, 3), example)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        ss.explain(fast, example, rounds=0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        ss.explain(fast, example, threads=0)
    with pytest.raises(ValueError, match="must be a float32 tensor of shape"):
        ss.explain(fast, torch.randn(1, 3, 25, 25), rounds=1)
    assert explain_function is ss.explain


def test_steps_are_the_nodes_of_the_graph(network):
    fast, example = network
    steps = Stepwise(fast)
    assert steps.names == [node.name for node in fast.graph.nodes]
    with torch.inference_mode():
        times = steps.run([example])
    assert len(times) == len(steps.names) and all(seconds > 0 for seconds in times)
    import contextlib

    found = time_steps({"x": (fast, contextlib.nullcontext)}, [example], rounds=2)
    assert list(found["x"]) == steps.names


def test_input_sizes_of_packed_convolutions(network):
    fast, example = network
    assert list(input_sizes(fast, [example]).values()) == [(24, 24), (12, 12), (12, 12)]


def test_preferences_survive_also_where_few_filters_stay_as_they_are():
    from semisparse import algorithms

    torch.manual_seed(0)
    fast = ss.convert(nn.Conv2d(16, 8, 3, padding=1), torch.randn(1, 16, 12, 12))
    packed = fast.get_buffer(fast.graph.nodes[0].args[1].name)
    for name in ("im2col", "winograd4", "winograd2"):
        algorithms.prefer(packed, (12, 12), name)
        for _ in range(2):
            (layer,) = ss.explain(fast, torch.randn(1, 16, 12, 12), rounds=1).layers
            assert layer.algorithm == name
    algorithms.prefer(packed, (12, 12), algorithms.AUTOMATIC)
