import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semisparse.eval import imposed
from semisparse.eval.layers import Case, Layer
from semisparse.eval.network import measure, random_network
from semisparse.masking import column_mask, masked_modules


@pytest.mark.parametrize(("ratio", "granularity"), [(0.1, "pixel"), (0.3, "pixel"), (0.3, "run16")])
def test_imposed_masks_have_the_asked_ratio(ratio, granularity):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    imposed.impose_columns(network, imposed.columns(ratio, granularity), torch.randn(1, 3, 32, 32), skip=())
    for layer in network:
        mask = column_mask(layer)
        assert mask.shape == (32, 32)
        assert 1 - mask.float().mean().item() == pytest.approx(ratio, abs=0.02)
        if granularity == "run16":
            assert all(len(run.unique()) == 1 for run in mask.flatten().split(16))


def test_ratio_zero_leaves_the_network_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    imposed.impose_columns(network, imposed.columns(0.0), torch.randn(1, 3, 8, 8), skip=())
    assert masked_modules(network) == {}


@pytest.mark.parametrize("setting", [imposed.columns(0.0), imposed.columns(0.3)], ids=imposed.label)
def test_layer_calls_compute_the_same_convolution(setting):
    case = Case(Layer(16, 12))
    expected = F.conv2d(case.input, case.weight, case.bias, padding=1)
    mask = case.mask(setting)
    if mask is not None:
        expected = expected * mask
    torch.testing.assert_close(case.semisparse(setting)(), expected, rtol=1e-4, atol=1e-4)
    if mask is None:
        torch.testing.assert_close(case.torch()(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(case.onednn_prepacked()(), expected, rtol=1e-4, atol=1e-4)


def test_random_network_has_ordinary_activations():
    pytest.importorskip("semisparse._torchvision")
    with torch.inference_mode():
        scores = random_network("resnet18", 64)(torch.randn(2, 3, 64, 64))
    assert 0.05 < scores.std() < 20
    assert torch.isfinite(scores).all()


def test_network_comparison_names_every_candidate():
    pytest.importorskip("semisparse._torchvision")
    settings = [imposed.columns(0.0), imposed.columns(0.3)]
    calls, found, missing = measure("resnet18", settings, size=64, rounds=1, engines=["torch"])
    assert list(calls) == list(found.latency) == ["torch", "dense", "0.3 pixel"]
    assert missing == {}
    with torch.inference_mode():
        torch.testing.assert_close(calls["dense"](), calls["torch"](), rtol=1e-3, atol=1e-3)
        assert not torch.allclose(calls["0.3 pixel"](), calls["dense"](), rtol=1e-3, atol=1e-3)
