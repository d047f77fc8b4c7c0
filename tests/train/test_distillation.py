import pytest
import torch
from torch import nn
from torch.nn import functional as F

from semisparse.train import Distillation


def test_is_the_divergence_from_the_teacher_and_trains_only_the_student():
    torch.manual_seed(0)
    teacher, x = nn.Linear(5, 3), torch.randn(4, 5)
    logits = torch.randn(4, 3, requires_grad=True)
    loss = Distillation(teacher, weight=5.0, temperature=2.0)(logits, x)
    p, q = F.softmax(teacher(x) / 2, 1), F.softmax(logits / 2, 1)
    assert torch.allclose(loss, 5 * 4 * (p * (p / q).log()).sum(1).mean(), rtol=1e-5)
    loss.backward()
    assert logits.grad.abs().sum() > 0
    assert not teacher.training and all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_is_zero_for_a_perfect_student():
    teacher, x = nn.Linear(5, 3), torch.randn(4, 5)
    assert Distillation(teacher)(teacher(x), x).item() == pytest.approx(0, abs=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="temperature 0 must be positive"):
        Distillation(nn.Linear(5, 3), temperature=0)
    with pytest.raises(ValueError, match="weight -1 must not be negative"):
        Distillation(nn.Linear(5, 3), weight=-1)
    with pytest.raises(ValueError, match=r"teacher gives logits \(4, 3\), the student \(4, 2\)"):
        Distillation(nn.Linear(5, 3))(torch.randn(4, 2), torch.randn(4, 5))
