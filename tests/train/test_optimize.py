import copy

import pytest
import torch
from nets import SmallNet

from semisparse.masking import attach_column_mask, column_mask, set_column_mask
from semisparse.train.optimize import OPTIMIZERS, Schedule, WeightAverage, make_optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_loss(name):
    torch.manual_seed(0)
    model, x = SmallNet(), torch.randn(4, 3, 12, 14)
    optimizer = make_optimizer(model, name, lr=1e-3)
    first = model(x).square().sum()
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
    assert loss < first


def test_norm_weight_decay_is_for_vectors():
    groups = make_optimizer(SmallNet(), "sgd", lr=1, weight_decay=0.1, norm_weight_decay=0.0).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert all(p.dim() > 1 for p in groups[0]["params"]) and all(p.dim() == 1 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(SmallNet().parameters()))
    with pytest.raises(ValueError, match="optimiser 'lion' is unknown"):
        make_optimizer(SmallNet(), "lion", lr=1)


def test_schedules():
    cosine = Schedule("cosine", 100, warmup_steps=10)
    assert cosine(0) == 0.01 and cosine(5) == pytest.approx(0.505) and cosine(10) == 1
    assert cosine(55) == pytest.approx(0.5) and cosine(100) == 0
    assert Schedule("linear", 100, final=0.1)(50) == pytest.approx(0.55)
    assert Schedule("constant", 100)(99) == 1
    assert [Schedule("step", 90)(s) for s in (0, 29, 30, 60)] == pytest.approx([1, 1, 0.1, 0.01])
    with pytest.raises(ValueError, match="schedule 'sawtooth' is unknown"):
        Schedule("sawtooth", 1)


def test_average_follows_weights_and_copies_masks():
    model = SmallNet()
    attach_column_mask(model.a[0], torch.ones(12, 14, dtype=torch.bool))
    average = WeightAverage(model, 0.9)
    mask = torch.rand(12, 14) > 0.5
    set_column_mask(model.a[0], mask)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    before = average.module.fc.weight.clone()
    average.update(model)
    assert torch.equal(column_mask(average.module.a[0]), mask)
    decay = 2 / 11  # warm-up of the decay: (1 + n) / (10 + n)
    assert torch.allclose(average.module.fc.weight, decay * before + (1 - decay))
    again = WeightAverage(copy.deepcopy(model), 0.9)
    again.load_state_dict(average.state_dict())
    assert torch.equal(again.module.fc.weight, average.module.fc.weight) and again.updates == 1
