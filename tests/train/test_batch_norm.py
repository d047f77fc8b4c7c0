import pytest
import torch
from nets import SmallNet

from semisparse.train.batch_norm import reestimate


def test_statistics_become_the_mean_over_the_batches():
    torch.manual_seed(0)
    model = SmallNet().train()
    model.b.eval()
    norm = model.stem[1]
    norm.momentum = 0.3
    batches = [(torch.randn(8, 3, 12, 14) + i, None) for i in range(5)]
    weights = {k: v.clone() for k, v in model.named_parameters()}
    reestimate(model, batches, 3)
    outputs = [model.stem[0](x) for x, _ in batches[:3]]
    expected = torch.stack([o.mean((0, 2, 3)) for o in outputs]).mean(0)
    variance = torch.stack([o.var((0, 2, 3)) for o in outputs]).mean(0)
    assert torch.allclose(norm.running_mean, expected, atol=1e-5)
    assert torch.allclose(norm.running_var, variance, rtol=1e-4)
    assert norm.momentum == 0.3 and model.a.training and not model.b.training
    assert all(torch.equal(weights[k], v) for k, v in model.named_parameters())


def test_no_batches():
    with pytest.raises(ValueError, match="no batches"):
        reestimate(SmallNet(), [], 3)
    reestimate(torch.nn.Linear(2, 2), [], 3)  # nothing to re-estimate
