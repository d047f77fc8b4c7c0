import pytest
import torch
from torch import nn
from torch.nn import functional as F

from semisparse.train import Distillation
from semisparse.train.distillation import detection_divergence


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


def outputs(cells: int, classes: int = 3, bins: int = 4) -> dict[str, torch.Tensor]:
    return {"scores": torch.randn(2, classes, cells), "boxes": torch.randn(2, 4 * bins, cells)}


def test_detectors_are_compared_cell_by_cell():
    torch.manual_seed(0)
    student, teacher = outputs(5), outputs(5)
    scores, boxes, weights = detection_divergence(student, teacher)
    sure, binary, sides = torch.zeros(2, 5), 0.0, 0.0
    for n in range(2):
        for cell in range(5):
            p, q = (of["scores"][n, :, cell].sigmoid() for of in (teacher, student))
            sure[n, cell] = p.max()
            binary += (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()
            for side in range(4):
                p, q = (of["boxes"][n, 4 * side : 4 * side + 4, cell].softmax(0) for of in (teacher, student))
                sides += sure[n, cell] * (p * (p / q).log()).sum() / 4
    assert torch.allclose(weights, sure)
    assert torch.allclose(scores, binary / sure.sum(), rtol=1e-4)
    assert torch.allclose(boxes, sides / sure.sum(), rtol=1e-4)


def test_sides_of_one_number_are_compared_by_distance():
    student, teacher = outputs(5, bins=1), outputs(5, bins=1)
    teacher["scores"] = student["scores"] = torch.full((2, 3, 5), -50.0)
    teacher["scores"][1, 2, 3] = 50.0  # the one cell with an object
    scores, boxes, weights = detection_divergence(student, teacher)
    assert weights.sum() == pytest.approx(1) and scores == pytest.approx(0, abs=1e-6)
    assert torch.allclose(boxes, (student["boxes"] - teacher["boxes"])[1, :, 3].abs().mean())


def test_a_detector_like_its_teacher_has_no_divergence_and_no_gradient():
    teacher = outputs(7)
    student = {name: value.clone().requires_grad_() for name, value in teacher.items()}
    scores, boxes, _ = detection_divergence(student, teacher)
    assert scores.item() == pytest.approx(0, abs=1e-5) and boxes.item() == pytest.approx(0, abs=1e-6)
    (scores + boxes).backward()
    assert all(value.grad.abs().max() < 1e-6 for value in student.values())
    with pytest.raises(ValueError, match=r"teacher gives scores \(2, 2, 7\), the student \(2, 3, 7\)"):
        detection_divergence(student, outputs(7, classes=2))
