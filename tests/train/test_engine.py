import pytest
import torch
from nets import SmallNet, quadrants
from torch import nn

from semisparse.train.engine import Precision, evaluate, train_epoch


class Fixed(nn.Module):
    def forward(self, logits):
        return logits


def test_accuracy_counts_every_picture_once():
    logits = torch.eye(10)[[0, 1, 2, 3]] + 0.1 * torch.arange(10.0)
    batches = [(logits[:3], torch.tensor([0, 1, 6])), (logits[3:], torch.tensor([0]))]
    model = Fixed().train()
    accuracy = evaluate(model, batches)
    assert (accuracy.top1, accuracy.top5, accuracy.count) == (50.0, 75.0, 4)
    expected = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 6, 0]))
    assert accuracy.loss == pytest.approx(expected.item(), rel=1e-6)
    assert model.training
    with pytest.raises(ValueError, match="no validation pictures"):
        evaluate(model, [])


@pytest.mark.parametrize("amp", [False, True])
def test_an_epoch_learns(amp):
    torch.manual_seed(0)
    model = SmallNet()
    x, y = quadrants(320)
    batches = list(zip(x.split(32), y.split(32), strict=True))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    precision = Precision(torch.device("cpu"), amp)
    notes = []
    for _ in range(4):
        result = train_epoch(
            model,
            batches,
            nn.CrossEntropyLoss(),
            optimizer,
            precision=precision,
            clip_grad_norm=5.0,
            advance=notes.append,
        )
    assert result["top1"] > 90 and evaluate(model, batches, precision=precision).top1 > 90
    assert len(notes) == 40 and "top-1" in notes[0]


def test_a_loss_that_is_not_finite_stops_training_with_advice():
    model = SmallNet()
    with pytest.raises(RuntimeError, match="loss became nan; lower --lr"):
        train_epoch(
            model,
            [(torch.full((2, 3, 12, 14), float("nan")), torch.tensor([0, 1]))],
            nn.CrossEntropyLoss(),
            torch.optim.SGD(model.parameters(), 0.1),
            precision=Precision(torch.device("cpu"), False),
        )
