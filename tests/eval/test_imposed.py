import pytest
import torch
import torch.nn.functional as F
from torch import nn

import semisparse as ss
from semisparse.eval import imposed
from semisparse.eval.layers import Case, Layer
from semisparse.eval.models import random_network
from semisparse.eval.network import measure, report
from semisparse.masking import column_mask, masked_modules


@pytest.mark.parametrize(
    "text", ["columns=0.1", "columns=0.3", "columns=0.3+granularity=run16", "granularity=run16, columns=0.3"]
)
def test_imposed_masks_have_the_asked_ratio(text):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    imposed.impose(network, imposed.parse(text), torch.randn(1, 3, 32, 32), skip=())
    for layer in network:
        mask = column_mask(layer)
        assert mask.shape == (32, 32)
        assert 1 - mask.float().mean().item() == pytest.approx(float(text.split("columns=")[1][:3]), abs=0.02)
        if "run16" in text:
            assert all(len(run.unique()) == 1 for run in mask.flatten().split(16))


@pytest.mark.parametrize(
    ("text", "kept", "scheme"),
    [
        ("pattern+group=4", 4 / 9, "pattern"),
        ("pattern + connectivity=0.75 + group=4", 1 / 9, "pattern"),
        ("connectivity=0.5", 1 / 2, None),
        ("unstructured=0.8", 0.2, "unstructured"),
        ("block_punched=0.75+block=4x2", 0.25, None),
    ],
)
def test_imposed_weights_have_the_asked_structure(text, kept, scheme):
    network = nn.Sequential(nn.Conv2d(16, 32, 3))
    imposed.impose(network, imposed.parse(text), torch.randn(1, 16, 12, 12), skip=())
    (layer,) = ss.statistics(network).layers
    assert 1 - layer.weight_sparsity == pytest.approx(kept, abs=0.02)
    if scheme:
        assert layer.scheme == scheme
    if "group=4" in text:
        used = network[0].weight.detach() != 0
        assert all(bool((unit == unit[:1]).all()) for unit in used.split(4))


def test_kinds_of_layers_have_settings_of_their_own():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 1))
    imposed.impose(network, imposed.parse("pattern; 1x1: block=0.75"), torch.randn(1, 3, 12, 12))
    stem, body, pointwise = (
        1 - layer.weight.count_nonzero().item() / layer.weight.numel() for layer in network
    )
    assert stem == 0
    assert body == pytest.approx(5 / 9)
    assert pointwise == pytest.approx(0.75, abs=0.02)


def test_recipes_are_settings():
    setting = imposed.parse("columns30")
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    imposed.impose(network, setting, torch.randn(1, 3, 32, 32))
    assert str(setting) == "columns30"
    assert list(masked_modules(network)) == ["1"]
    assert 1 - column_mask(network[1]).float().mean().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("name", ss.Recipe.shipped())
def test_every_shipped_recipe_can_be_imposed(name):
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 1))
    imposed.impose(network, imposed.parse(name), torch.randn(1, 3, 16, 16))
    sparse = ss.statistics(network).layers[1]
    assert sparse.weight_sparsity > 0 or sparse.column_sparsity > 0


def test_dense_leaves_the_network_alone():
    for text in ("dense", ""):
        network = nn.Sequential(nn.Conv2d(3, 4, 3))
        weight = network[0].weight.clone()
        imposed.impose(network, imposed.parse(text), torch.randn(1, 3, 8, 8), skip=())
        assert masked_modules(network) == {}
        assert torch.equal(network[0].weight, weight)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns=1.5", "columns.ratio is 1.5"),
        ("patern", "has the item 'patern'; expected one of dense, pattern"),
        ("pattern+group", "has the item 'group'"),
        ("columns=some", "columns.ratio"),
    ],
)
def test_unknown_words_and_ratios_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        imposed.parse(text)


@pytest.mark.parametrize("text", ["dense", "columns=0.3", "pattern+group=4, columns=0.3"])
def test_layer_calls_compute_the_same_convolution(text):
    case, setting = Case(Layer(16, 12)), imposed.parse(text)
    weight, mask = case.sparse(setting)
    expected = F.conv2d(case.input, weight, case.bias, padding=1)
    if mask is not None:
        expected = expected * mask
    torch.testing.assert_close(case.semisparse(setting)(), expected, rtol=1e-4, atol=1e-4)
    if setting.dense:
        torch.testing.assert_close(case.torch()(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(case.onednn_prepacked()(), expected, rtol=1e-4, atol=1e-4)


def test_random_network_has_ordinary_activations():
    pytest.importorskip("semisparse._torchvision")
    with torch.inference_mode():
        scores = random_network("resnet18", 64)(torch.randn(2, 3, 64, 64))
    assert 0.05 < scores.std() < 20
    assert torch.isfinite(scores).all()


def test_network_comparison_names_every_candidate():
    settings = [imposed.parse("dense"), imposed.parse("columns=0.3")]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    example = torch.randn(1, 3, 20, 20)
    found, networks = measure(model, settings, example, rounds=1, engines=["torch"], runtime=True)
    ours = ["dense", "columns=0.3", "dense, runtime", "columns=0.3, runtime"]
    assert list(found.comparison.latency) == ["torch", *ours] and list(networks) == ours
    assert found.missing == {}
    with torch.inference_mode():
        expected = model(example)
        torch.testing.assert_close(networks["dense"](example), expected, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(networks["columns=0.3"](example), expected, rtol=1e-3, atol=1e-3)
    table = report(found, networks)
    assert "x torch" in table and "x own dense" in table and "fastest dense engine: torch" in table


def test_layers_by_name():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, 3), *(nn.Conv2d(8, 8, 1) for _ in range(3)))
    setting = imposed.parse("dense+columns=0.5; 1x1: columns=0.25; re:[23]: columns=0")
    imposed.impose(network, setting, torch.randn(1, 4, 10, 10))
    converted = ss.convert(network, torch.randn(1, 4, 10, 10), free_size=False)
    assert [layer.column_sparsity for layer in converted.layers] == [0, 0.25, 0, 0]
