"""What the traced graph may and may not assume about inputs, outputs and the model's own state."""

import copy
from collections import OrderedDict, namedtuple

import pytest
import torch
import torch.nn.functional as F
from conversions import Net, convert_and_compare, mask_randomly, operators, randomise
from torch import nn

import semisparse as ss
from semisparse import masking

X = torch.randn(2, 4, 12, 8, generator=torch.Generator().manual_seed(0))


def conv(**options):
    return nn.Conv2d(4, 4, 3, padding=1, **options)


def shapes(fast):
    return [i.shape for i in fast.graph.inputs]


def test_batch_and_size_are_free_without_masks():
    fast = convert_and_compare(Net(lambda s, x: F.max_pool2d(s.conv(x), 2), conv=conv()), X)
    assert shapes(fast) == [(None, 4, None, None)]
    assert fast(torch.randn(1, 4, 31, 17)).shape == (1, 4, 15, 8)


def test_size_is_fixed_with_masks():
    fast = convert_and_compare(mask_randomly(Net(lambda s, x: s.conv(x), conv=conv()), X), X)
    assert shapes(fast) == [(None, 4, 12, 8)]


def test_branch_on_the_size_fixes_it():
    # Either branch would be wrong for some size: the graph holds only one.
    model = Net(lambda s, x: s.conv(x) if x.shape[2] < 20 else s.conv(x) * 2, conv=conv())
    fast = convert_and_compare(model, X)
    assert shapes(fast) == [(None, 4, 12, 8)]
    with pytest.raises(ValueError, match="convert with an example of this size"):
        fast(torch.randn(1, 4, 32, 8))


def test_branch_that_holds_for_larger_sizes_gives_a_minimum():
    model = Net(lambda s, x: s.conv(x) if x.shape[2] >= 10 else s.conv(x) * 2, conv=conv())
    fast = convert_and_compare(model, X)
    assert shapes(fast) == [(None, 4, None, None)]
    for height in range(4, 30):
        x = torch.randn(1, 4, height, 8)
        try:
            result = fast(x)
        except ValueError:
            assert height < 12
        else:
            torch.testing.assert_close(result, model(x), rtol=1e-4, atol=1e-5)


def test_branch_on_divisibility_fixes_the_size():
    def function(s, x):
        return s.conv(F.pad(x, (0, 0, 0, 1)) if x.shape[2] % 4 else x)

    assert shapes(convert_and_compare(Net(function, conv=conv()), X)) == [(None, 4, 12, 8)]


def test_branch_on_the_batch_fixes_it():
    model = Net(lambda s, x: s.conv(x) if x.shape[0] < 5 else s.conv(x) * 2, conv=conv())
    fast = convert_and_compare(model, X, batch=2)
    assert shapes(fast) == [(2, 4, 12, 8)]


def test_size_used_as_a_number_stays_free():
    model = Net(
        lambda s, x: F.interpolate(s.conv(x), size=(x.shape[2] * 2, x.shape[3] + 1)).flatten(1), conv=conv()
    )
    fast = convert_and_compare(model, X)
    x = torch.randn(1, 4, 21, 30)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_batch_of_one_only():
    # The model is made for single images: the batch is fixed then, and said to be.
    model = Net(lambda s, x: s.conv(x).view(4, 12, 8), conv=conv())
    fast = convert_and_compare(model, X[:1], batch=1)
    assert shapes(fast) == [(1, 4, 12, 8)]
    with pytest.raises(ValueError, match=r"shape \(1, 4, 12, 8\)"):
        fast(X)


def test_two_inputs_and_their_names():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        def forward(self, image, other):
            return self.conv(image) + other

    model = Two()
    fast = convert_and_compare(model, X, X + 1, strict=True)
    assert [i.name for i in fast.graph.inputs] == ["image", "other"]
    torch.testing.assert_close(fast(other=X, image=X), model(X, X), rtol=1e-4, atol=1e-5)
    assert fast.layers[0].residual


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    "build, expected",
    [
        (lambda a, b: (a, b), tuple),
        (lambda a, b: [a, b], list),
        (lambda a, b: {"a": a, "b": b}, dict),
        (lambda a, b: OrderedDict(a=a, b=b), dict),
        (lambda a, b: Pair(a, b), tuple),
        (lambda a, b: (a, {"list": [b, 3, None, "text"]}), tuple),
    ],
)
def test_output_structures(build, expected, tmp_path):
    model = Net(lambda s, x: build(s.conv(x), x * 2), conv=conv())
    fast = ss.convert(model, X)
    ss.save(fast, tmp_path / "model.safetensors")
    for converted in (fast, ss.load(tmp_path / "model.safetensors")):
        result, reference = converted(X), model(X)
        assert type(result) is expected
        assert len(result) == len(reference)
        if expected is dict:
            assert list(result) == list(reference)
            result, reference = tuple(result.values()), tuple(reference.values())
        torch.testing.assert_close(result[0], reference[0], rtol=1e-4, atol=1e-5)
        if not isinstance(result[1], dict):
            torch.testing.assert_close(result[1], reference[1])
        else:
            assert result[1]["list"][1:] == [3, None, "text"]


def test_input_is_returned_and_constants_are_returned():
    model = Net(lambda s, x: (x, s.conv.weight * 2, s.conv(x)), conv=conv())
    fast = convert_and_compare(model, X, batch=2)
    assert torch.equal(fast(X)[0], X)


def test_input_changed_in_place_is_not_changed():
    model = Net(lambda s, x: s.conv(x.relu_()), conv=conv())
    fast = ss.convert(model, X.clone())
    x = X.clone()
    result = fast(x)
    assert torch.equal(x, X)
    torch.testing.assert_close(result, model(X.clone()), rtol=1e-4, atol=1e-5)


def test_no_grad_inside_the_model():
    def function(s, x):
        with torch.no_grad():
            x = x * 2
        return s.conv(x)

    convert_and_compare(Net(function, conv=conv()), X)


def test_other_hooks_are_part_of_the_model():
    model = Net(lambda s, x: s.conv(x), conv=conv())
    model.conv.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model.conv.register_forward_hook(lambda module, args, output: output.relu())
    fast = convert_and_compare(model, X)
    assert operators(fast) == ["mul.Tensor", "conv2d.packed"]


def test_training_mode_and_device_of_the_model_are_untouched():
    model = randomise(Net(lambda s, x: s.bn(s.conv(x)), conv=conv(), bn=nn.BatchNorm2d(4))).train()
    fast = ss.convert(model, X)
    assert model.training and model.bn.training and not fast.training
    with torch.no_grad():
        model.conv.weight.add_(1)
    torch.testing.assert_close(fast(X), ss.convert(copy.deepcopy(model), X)(X) * 0 + fast(X))
    assert not torch.allclose(fast(X), model.eval()(X))


class TestErrors:
    def test_control_flow_on_values(self):
        model = Net(lambda s, x: s.conv(x) if x.sum() > 0 else x, conv=conv())
        with pytest.raises(ValueError, match="cannot be captured as a graph.*control flow.*data-dependent"):
            ss.convert(model, X)

    def test_example_that_does_not_fit(self):
        with pytest.raises(ValueError, match="example_input that the model accepts"):
            ss.convert(nn.Sequential(conv()), torch.randn(1, 3, 8, 8))

    @pytest.mark.parametrize("example", [None, (), [1], "x"])
    def test_example_that_is_no_tensor(self, example):
        with pytest.raises((ValueError, TypeError), match="example_input"):
            ss.convert(nn.Sequential(conv()), example)

    def test_model_that_is_none(self):
        with pytest.raises(ValueError, match="nn.Module"):
            ss.convert(lambda x: x, X)

    def test_mask_of_another_size(self):
        model = nn.Sequential(conv())
        masking.attach_column_mask(model[0], torch.rand(6, 8) > 0.5)
        with pytest.raises(ValueError, match=r"\(6, 8\).*\(12, 8\).*size that the masks are for"):
            ss.convert(model, X)

    def test_model_with_state(self):
        class Counter(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = conv()
                self.register_buffer("calls", torch.zeros(()))

            def forward(self, x):
                self.calls.add_(1)
                return self.conv(x) * self.calls

        with pytest.raises(ValueError, match="changes calls"):
            ss.convert(Counter(), X)

    def test_output_that_cannot_be_held(self):
        with pytest.raises(ValueError, match="returns"):
            ss.convert(Net(lambda s, x: {1: s.conv(x)}, conv=conv()), X)


def test_layers_are_called_as_in_the_model():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 1)))

        def forward(self, x):
            return self.model(x)

    fast = ss.convert(Wrapped(), torch.zeros(1, 2, 4, 4))
    assert [layer.name for layer in fast.layers] == ["model.0", "model.1.0"]
    fast = ss.convert(nn.Conv2d(2, 2, 1), torch.zeros(1, 2, 4, 4))
    assert [bool(layer.name) for layer in fast.layers] == [True]
