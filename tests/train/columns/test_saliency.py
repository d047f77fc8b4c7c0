import copy
import pickle

import torch
from torch import nn

from semisparse.masking import attach_column_mask, set_column_mask
from semisparse.train.columns.saliency import SaliencyRecorder


def loss_of(conv, head, x, y, mask):
    """The same network written out, differentiable in the mask; one loss a picture."""
    out = conv(x) * mask
    return nn.functional.cross_entropy(head(out), y, reduction="none")


def setup(seed=0):
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 6, 3, stride=2)
    head = nn.Sequential(nn.BatchNorm2d(6).eval(), nn.GELU(), nn.Flatten(), nn.Linear(6 * 4 * 5, 7))
    x, y = torch.randn(8, 3, 9, 11), torch.randint(0, 7, (8,))
    mask = torch.rand(4, 5) > 0.3
    return conv, head, x, y, mask


def test_is_the_square_of_the_gradient_with_respect_to_the_mask_removed_columns_included():
    conv, head, x, y, mask = setup()
    expected = torch.zeros(4, 5)
    for i in range(len(x)):
        m = mask.float().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(conv, head, x[i : i + 1], y[i : i + 1], m).sum(), m)
        expected += gradient.square()
    attach_column_mask(conv, mask)
    recorder = SaliencyRecorder(conv, (4, 5))
    nn.functional.cross_entropy(head(conv(x)), y).backward()
    total, pictures = recorder.take()
    assert pictures == 8
    assert torch.allclose(total.float(), expected, rtol=1e-4, atol=1e-9)
    assert total[~mask].min() > 0
    assert recorder.take()[1] == 0


def test_changes_neither_output_nor_gradients():
    conv, head, x, y, mask = setup()
    attach_column_mask(conv, mask)
    plain = nn.functional.cross_entropy(head(conv(x)), y)
    expected = torch.autograd.grad(plain, conv.weight)[0]
    recorder = SaliencyRecorder(conv, (4, 5))
    loss = nn.functional.cross_entropy(head(conv(x)), y)
    assert torch.equal(loss, plain)
    assert torch.equal(torch.autograd.grad(loss, conv.weight)[0], expected)
    recorder.remove()
    assert len(conv._forward_hooks) == 1  # the mask's own


def test_records_neither_in_eval_mode_nor_without_gradient_nor_in_copies():
    conv, head, x, y, mask = setup()
    attach_column_mask(conv, mask)
    recorder = SaliencyRecorder(conv, (4, 5))
    copies = [copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))]
    for module in copies:
        nn.functional.cross_entropy(head(module(x)), y).backward()
        assert torch.equal(module(x), conv(x))
        set_column_mask(module, ~mask)  # a copy is a masked module of its own
        assert not torch.equal(module(x), conv(x))
    with torch.no_grad():
        conv(x)
    nn.functional.cross_entropy(head(conv.eval()(x)), y).backward()
    assert recorder.take()[1] == 0


def test_an_overflow_of_mixed_precision_does_not_spoil_the_sum():
    conv, head, x, y, mask = setup()
    attach_column_mask(conv, mask)
    recorder = SaliencyRecorder(conv, (4, 5))
    (nn.functional.cross_entropy(head(conv(x)), y) * float("inf")).backward()
    assert recorder.take()[0].eq(0).all()
