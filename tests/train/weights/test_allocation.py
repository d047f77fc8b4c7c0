import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from semisparse.recipe import LayerRecipe
from semisparse.train.weights.allocation import allocate
from semisparse.train.weights.layer import Layer


def layer(name, weight, positions=1, **recipe):
    module = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=False)
    module.weight.data = weight
    recipe = {"scheme": "unstructured", "ratio": 0.5, "scope": "global", **recipe}
    return Layer(name, module, LayerRecipe(**recipe), positions=positions)


def naive_ratios(layers, ratio):
    """LAMP of single weights by what they cost: sort and remove until the multiplications are met."""
    scored = []
    for layer in layers:
        squares = sorted((w * w for w in layer.weight.flatten().tolist()), reverse=True)
        total = 0.0
        for square in squares:
            total += square
            scored.append((square / total / layer.positions, layer))
    left = whole = sum(layer.weight.numel() * layer.positions for layer in layers)
    removed = dict.fromkeys((layer.name for layer in layers), 0)
    for _, layer in sorted(scored, key=lambda pair: pair[0]):
        if left - layer.positions / 2 <= (1 - ratio) * whole:
            break
        left -= layer.positions
        removed[layer.name] += 1
    return {layer.name: removed[layer.name] / layer.weight.numel() for layer in layers}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=4),
    st.floats(0.05, 0.9),
    st.integers(0, 2**31),
)
def test_against_a_loop(shapes, ratio, seed):
    generator = torch.Generator().manual_seed(seed)
    layers = [
        layer(str(i), torch.randn(f, c, 3, 3, generator=generator) * 10**i, positions, ratio=ratio)
        for i, (f, c, positions) in enumerate(shapes)
    ]
    allocate(layers)
    expected = naive_ratios(layers, ratio)
    for each in layers:
        assert each.ratio == pytest.approx(expected[each.name], abs=1.01 / each.weight.numel())
        assert each.ratio < 1


def test_layers_of_little_use_lose_more_and_scale_does_not_matter():
    torch.manual_seed(0)
    peaked, flat = torch.randn(8, 8, 3, 3) ** 3, torch.randn(8, 8, 3, 3).sign() * (1 + torch.rand(8, 8, 3, 3))
    ratios = []
    for scale in (1, 1000):
        layers = [layer("peaked", peaked * scale), layer("flat", flat)]
        allocate(layers)
        ratios.append([each.ratio for each in layers])
    assert ratios[0] == pytest.approx(ratios[1])
    assert ratios[0][0] > 0.6 and ratios[0][1] < 0.4 and sum(ratios[0]) == pytest.approx(1, abs=0.01)
    mask = layers[0].structure(layers[0].weight)
    assert 1 - mask.double().mean().item() == pytest.approx(layers[0].ratio, abs=1e-3)


def test_multiplications_count_and_pools_are_separate():
    torch.manual_seed(0)
    weight = torch.randn(8, 8, 3, 3)
    layers = [
        layer("large", weight, positions=100),
        layer("small", weight),
        layer("other", weight, ratio=0.25, scheme="block_punched"),
        layer("alone", weight, scope="layer"),
    ]
    allocate(layers)
    large, small, other, alone = (each.ratio for each in layers)
    assert (100 * large + small) / 101 == pytest.approx(0.5, abs=0.01)
    assert other == pytest.approx(0.25, abs=0.03) and alone is None
