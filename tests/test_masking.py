"""Column masks on training models."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import swa_utils

from semisparse import masking

MASK = torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=torch.bool)


def model(mask=MASK):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    if mask is not None:
        masking.attach_column_mask(net[0], mask)
    return net


X = torch.randn(2, 2, 2, 3, generator=torch.Generator().manual_seed(1))


def test_mask_multiplies_the_output_bias_included():
    masked, dense = model()[0](X), model(None)[0](X)
    assert torch.equal(masked[..., MASK], dense[..., MASK])
    assert (masked[..., ~MASK] == 0).all() and (dense[..., ~MASK] != 0).all()


def test_gradient_is_masked():
    net = model()[:1]
    net(X).sum().backward()
    dense = model(None)[:1]
    (dense(X) * MASK).sum().backward()
    torch.testing.assert_close(net[0].weight.grad, dense[0].weight.grad)


def test_output_keeps_its_dtype():
    assert model().double()(X.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert model()(X).dtype == torch.bfloat16


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_masked_and_independent(duplicate):
    net = model()
    other = duplicate(net)
    assert torch.equal(net(X), other(X))
    masking.set_column_mask(other[0], ~MASK)
    assert not torch.equal(net(X), other(X))
    masking.detach_column_mask(other[0])
    assert torch.equal(other(X), model(None)(X))


def test_moving_average_copy_follows_the_mask():
    average = swa_utils.AveragedModel(model(), multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    net = model(~MASK)
    for _ in range(2):
        average.update_parameters(net)
    assert torch.equal(masking.column_mask(average.module[0]), ~MASK)
    torch.testing.assert_close(average(X), net(X))


def test_state_dict_restores_the_mask():
    net, other = model(), model(~MASK)
    other.load_state_dict(net.state_dict())
    assert torch.equal(masking.column_mask(other[0]), MASK)
    assert torch.equal(net(X), other(X))


def test_set_works_in_place():
    net = model()
    buffer = masking.column_mask(net[0])
    masking.set_column_mask(net[0], ~MASK)
    assert masking.column_mask(net[0]) is buffer and torch.equal(buffer, ~MASK)


def test_the_given_tensor_is_copied():
    mask = MASK.clone()
    net = model(mask)
    mask.fill_(False)
    assert torch.equal(masking.column_mask(net[0]), MASK)


def test_attaching_again_replaces_the_mask_and_its_size():
    net = model()
    masking.attach_column_mask(net[0], torch.ones(4, 4, dtype=torch.bool))
    assert len(net[0]._forward_hooks) == 1
    assert net(torch.randn(1, 2, 4, 4)).shape == (1, 3, 4, 4)


def test_masked_modules_and_detach():
    net = model()
    assert masking.masked_modules(net) == {"0": net[0]}
    assert masking.column_mask(net[2]) is None
    masking.detach_column_mask(net[0])
    masking.detach_column_mask(net[0])
    assert masking.masked_modules(net) == {} and "0.column_mask" not in net.state_dict()


def test_disabled_masks_come_back_in_their_place():
    net = model()
    net[0].register_forward_hook(lambda module, args, output: output + 1)
    masked = net(X)
    with masking.column_masks_disabled(net):
        dense = net(X)
        with masking.column_masks_disabled(net):
            assert torch.equal(net(X), dense)
        assert torch.equal(net(X), dense)
        net[0].register_forward_hook(lambda module, args, output: output * 2)
    assert not torch.equal(masked, dense)
    hooks = list(net[0]._forward_hooks.values())
    assert len(hooks) == 3 and hooks[0] is masking._multiply_by_mask

    with pytest.raises(KeyError), masking.column_masks_disabled(net):
        raise KeyError
    assert list(net[0]._forward_hooks.values()) == hooks


def test_another_input_size_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(4, 6\).*size that the masks were made for"):
        model()(torch.randn(1, 2, 4, 6))
    with pytest.raises(ValueError, match="column mask"):  # would broadcast
        model(torch.ones(1, 1, dtype=torch.bool))(X)


@pytest.mark.parametrize(
    "mask",
    [MASK.float(), MASK[None], torch.ones(0, 3, dtype=torch.bool), [[True]], None],
    ids=["float", "3-d", "empty", "list", "none"],
)
def test_what_is_no_mask_is_refused(mask):
    net = model()
    for function in (masking.attach_column_mask, masking.set_column_mask):
        with pytest.raises(ValueError, match=r"bool tensor \(OH, OW\)"):
            function(net[0], mask)
    assert torch.equal(masking.column_mask(net[0]), MASK)


def test_wrong_modules_and_sizes_are_refused():
    net = model()
    with pytest.raises(ValueError, match="nn.Conv2d, but this is a ReLU"):
        masking.attach_column_mask(net[1], MASK)
    with pytest.raises(ValueError, match="attach_column_mask"):
        masking.set_column_mask(net[2], MASK)
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\)"):
        masking.set_column_mask(net[0], MASK.t())


@pytest.mark.parametrize(("size", "factor"), [((4, 6), 2), ((6, 9), 3)])
def test_multiples_of_the_size_repeat_each_mask_entry(size, factor):
    expected = MASK.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    assert torch.equal(masking.resample_mask(MASK, size), expected)
    assert torch.equal(masking.resample_mask(expected, (2, 3)), MASK)


@given(
    old=st.tuples(st.integers(1, 9), st.integers(1, 9)), new=st.tuples(st.integers(1, 9), st.integers(1, 9))
)
def test_resampling_takes_the_nearest_centre(old, new):
    mask = torch.rand(old, generator=torch.Generator().manual_seed(0)) < 0.6
    nearest = torch.nn.functional.interpolate(mask[None, None].double(), new, mode="nearest-exact")[
        0, 0
    ].bool()
    result = masking.resample_mask(mask, new)
    assert result.any()
    if nearest.any():
        assert torch.equal(result, nearest)


def test_other_sizes_follow_the_policy():
    net, dense, x = model(), model(None), torch.randn(1, 2, 4, 6)
    with pytest.raises(ValueError, match="set_other_sizes"):
        net(x)
    masking.set_other_sizes(net, "dense")
    assert torch.equal(net(x), dense(x))
    masking.set_other_sizes(net, "resample")
    expected = dense[0](x) * masking.resample_mask(MASK, (4, 6))
    assert torch.equal(copy.deepcopy(net)[0](x), expected)
    with pytest.raises(ValueError, match="refuse, resample, dense"):
        masking.set_other_sizes(net, "stretch")


def test_fit_masks_is_what_the_policy_does():
    net, x = model(), torch.randn(1, 2, 5, 4)
    resampled, dense = copy.deepcopy(net), copy.deepcopy(net)
    masking.fit_masks(resampled, x)
    masking.fit_masks(dense, x, "dense")
    masking.set_other_sizes(net, "resample")
    assert torch.equal(resampled(x), net(x))
    assert torch.equal(masking.column_mask(resampled[0]), masking.resample_mask(MASK, (5, 4)))
    assert not masking.masked_modules(dense) and torch.equal(dense(x), model(None)(x))
    before = masking.column_mask(net[0])
    masking.fit_masks(net, X, "refuse")
    assert masking.column_mask(net[0]) is before
    with pytest.raises(ValueError, match="masks belong to one input size"):
        masking.fit_masks(net, x, "refuse")
