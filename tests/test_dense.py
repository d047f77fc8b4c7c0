"""The dense counterparts of a converted network."""

import pytest
import torch
from torch import nn

import semisparse as ss
from semisparse.dense import dense, plain
from semisparse.masking import attach_column_mask


class Net(nn.Module):
    """Residual, every kind of activation that is fused, pooling, a layer that is used twice."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body, self.pool = nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2)
        self.act, self.head, self.classes = activation, nn.Conv2d(8, 4, 1, groups=2), nn.Linear(4, 5)

    def forward(self, x):
        x = self.pool(self.act(self.bn(self.stem(x))))
        x = self.act(self.body(x) + x)
        return self.act(self.classes(self.head(self.body(x)).mean((2, 3))))


ACTIVATIONS = [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.LeakyReLU(0.01), nn.Hardswish(), nn.Sigmoid()]


@pytest.fixture(params=ACTIVATIONS, ids=lambda a: type(a).__name__)
def model(request):
    torch.manual_seed(0)
    model = Net(request.param).eval()
    with torch.no_grad():
        model.body.weight[:, 2:] = 0
    return model


def test_plain_computes_the_same_with_torch_alone(model):
    x = torch.randn(2, 3, 12, 12)
    fast = ss.convert(model, x)
    other = plain(fast)
    assert any(node.op.startswith("semisparse.") for node in fast.graph.nodes)
    assert not any(node.op.startswith("semisparse.") for node in other.graph.nodes)
    with torch.inference_mode():
        torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-5)


def test_dense_has_neither_zeros_nor_masks(model):
    x = torch.randn(1, 3, 12, 12)
    attach_column_mask(model.stem, torch.rand(12, 12) > 0.3)
    fast = ss.convert(model, x)
    full = dense(fast)
    before, after = ss.statistics(fast), ss.statistics(full)
    assert after.macs_kept == after.macs_dense == before.macs_dense > before.macs_kept
    assert full.column_masks() == {} and len(fast.column_masks()) == 1
    assert [node.op for node in full.graph.nodes] == [node.op for node in fast.graph.nodes]
    with torch.inference_mode():
        assert full(x).shape == fast(x).shape
        assert torch.isfinite(full(x)).all()


def test_dense_of_a_dense_network_is_the_network():
    model, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    fast = ss.convert(model, x)
    with torch.inference_mode():
        assert torch.equal(dense(fast)(x), fast(x))
