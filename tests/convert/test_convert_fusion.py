"""What is fused into a convolution, and what must not be."""

import pytest
import torch
import torch.nn.functional as F
from conversions import Net, convert_and_compare, mask_randomly, operators, randomise
from torch import nn
from torch.nn.utils import prune

import semisparse as ss
from semisparse import masking

X = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))


def conv(**options):
    return nn.Conv2d(4, 4, 3, padding=1, **options)


ACTIVATIONS = {
    "relu": [nn.ReLU(), nn.ReLU(inplace=True), F.relu, lambda x: x.relu_(), lambda x: x.clamp(min=0)],
    "relu6": [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, lambda x: x.clamp(0, 6), nn.Hardtanh(0.0, 6.0)],
    "silu": [nn.SiLU(), nn.SiLU(inplace=True)],
    "leaky_relu": [nn.LeakyReLU(), nn.LeakyReLU(inplace=True)],
    "hardswish": [nn.Hardswish(), nn.Hardswish(inplace=True)],
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, lambda x: x.sigmoid_()],
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "name, activation", [(name, f) for name, functions in ACTIVATIONS.items() for f in functions]
)
def test_activation(name, activation, masked):
    model = randomise(Net(lambda s, x: activation(s.bn(s.conv(x))), conv=conv(), bn=nn.BatchNorm2d(4)))
    if masked:
        mask_randomly(model, X)
    fast = convert_and_compare(model, X, strict=True)
    assert operators(fast) == ["conv2d.packed"]
    assert fast.layers[0].activation == name and fast.layers[0].batch_norm


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Hardtanh(-1.0, 1.0), nn.PReLU()]
)
def test_other_activations_stay_separate(activation):
    model = Net(lambda s, x: s.activation(s.conv(x)), conv=conv(), activation=activation)
    fast = convert_and_compare(model, X)
    assert len(operators(fast)) == 2 and operators(fast)[0] == "conv2d.packed"
    assert "stays separate" in fast.layers[0].notes[0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm(bias, affine, masked):
    model = randomise(
        Net(lambda s, x: s.bn(s.conv(x)), conv=conv(bias=bias), bn=nn.BatchNorm2d(4, affine=affine))
    )
    if masked:
        mask_randomly(model, X)
    fast = convert_and_compare(model, X, strict=True)
    assert operators(fast) == ["conv2d.packed"]


@pytest.mark.arm
def test_masked_pixels_hold_the_batch_norm_shift():
    model = mask_randomly(randomise(Net(lambda s, x: s.bn(s.conv(x)), conv=conv(), bn=nn.BatchNorm2d(4))), X)
    fast = convert_and_compare(model, X)
    bn, removed = model.bn, ~masking.column_mask(model.conv)
    shift = bn.bias - bn.running_mean * bn.weight / (bn.running_var + bn.eps).sqrt()
    torch.testing.assert_close(fast(X)[0][:, removed], shift[:, None].expand(-1, int(removed.sum())))
    assert shift.abs().min() > 0


@pytest.mark.parametrize("bias", [False, True])
def test_mask_without_batch_norm_also_masks_the_bias(bias):
    model = mask_randomly(Net(lambda s, x: s.conv(x), conv=conv(bias=bias)), X)
    fast = convert_and_compare(model, X, strict=True)
    assert (fast(X)[..., ~masking.column_mask(model.conv)] == 0).all()
    assert "fill" not in fast.graph.nodes[0].kwargs


def test_full_mask_is_dropped():
    model = Net(lambda s, x: s.conv(x), conv=conv())
    masking.attach_column_mask(model.conv, torch.ones(9, 8, dtype=torch.bool))
    fast = convert_and_compare(model, X)
    assert "mask" not in fast.graph.nodes[0].kwargs


def test_empty_mask():
    model = randomise(Net(lambda s, x: s.bn(s.conv(x)), conv=conv(), bn=nn.BatchNorm2d(4)))
    masking.attach_column_mask(model.conv, torch.zeros(9, 8, dtype=torch.bool))
    convert_and_compare(model, X, strict=True)


def test_batch_norm_without_running_statistics_is_left_alone():
    model = Net(lambda s, x: s.bn(s.conv(x)), conv=conv(), bn=nn.BatchNorm2d(4, track_running_stats=False))
    fast = convert_and_compare(model, X)
    assert operators(fast) == ["conv2d.packed", "batch_norm"]
    assert "no running statistics" in fast.layers[0].notes[0]


def test_batch_norm_before_convolution_is_left_alone():
    model = randomise(Net(lambda s, x: s.conv(F.relu(s.bn(x))), conv=conv(), bn=nn.BatchNorm2d(4)))
    assert operators(convert_and_compare(model, X)) == ["batch_norm", "relu", "conv2d.packed"]


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: F.relu(s.bn(s.conv(x)) + x),
        lambda s, x: F.relu(x + s.bn(s.conv(x))),
        lambda s, x: s.bn(s.conv(x)).add_(x).relu_(),
        lambda s, x: torch.add(s.bn(s.conv(x)), x, alpha=1).relu(),
    ],
)
def test_residual(function):
    model = mask_randomly(randomise(Net(function, conv=conv(), bn=nn.BatchNorm2d(4))), X)
    fast = convert_and_compare(model, X, strict=True)
    assert operators(fast) == ["conv2d.packed"]
    assert fast.layers[0].residual and fast.layers[0].activation == "relu"


def test_sum_of_two_convolutions_goes_to_the_last():
    for order in ("ab", "ba"):

        def function(s, x, order=order):
            values = {name: getattr(s, "bn_" + name)(getattr(s, name)(x)) for name in order}
            return F.relu(values["a"] + values["b"])

        model = Net(function, a=conv(), b=conv(), bn_a=nn.BatchNorm2d(4), bn_b=nn.BatchNorm2d(4))
        fast = convert_and_compare(mask_randomly(randomise(model), X), X, strict=True)
        assert operators(fast) == ["conv2d.packed"] * 2
        assert [(layer.name, layer.residual) for layer in fast.layers] == [
            (order[0], False),
            (order[1], True),
        ]


def test_residual_computed_after_the_convolution():
    # The convolution moves to the addition, where its residual exists; its input stays alive until then.
    model = Net(lambda s, x: s.conv(x) + F.max_pool2d(F.gelu(x), 3, 1, 1), conv=conv())
    assert operators(convert_and_compare(model, X)) == ["gelu", "max_pool2d", "conv2d.packed"]


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: s.conv(x) + x[:, :1],  # broadcast over channels
        lambda s, x: s.conv(x) + x.mean((2, 3), keepdim=True),
        lambda s, x: torch.add(s.conv(x), x, alpha=2),
        lambda s, x: s.conv(x) + 1,
        lambda s, x: (lambda y: y + y)(s.conv(x)),
        lambda s, x: s.conv(x) + x.double(),
        lambda s, x: s.conv(x[:1]) + x,  # broadcast over the batch
    ],
)
def test_additions_that_are_no_residual(function):
    fast = convert_and_compare(Net(function, conv=conv()), X)
    assert not fast.layers[0].residual and "add.Tensor" in operators(fast)


def test_activation_before_addition_stays_before():
    model = Net(lambda s, x: F.relu(s.conv(x)) + x, conv=conv())
    assert operators(convert_and_compare(model, X)) == ["conv2d.packed", "add.Tensor"]


def test_value_used_twice_is_not_fused_past_that_use():
    model = randomise(
        Net(lambda s, x: (lambda y: s.bn(y) + y.mean())(s.conv(x)), conv=conv(), bn=nn.BatchNorm2d(4))
    )
    fast = convert_and_compare(model, X)
    assert "batch_norm" in operators(fast) and not fast.layers[0].batch_norm
    assert "2 users" in fast.layers[0].notes[0]

    model = Net(lambda s, x: (lambda y: (y, F.relu(y)))(s.conv(x)), conv=conv())
    assert operators(convert_and_compare(model, X)) == ["conv2d.packed", "relu"]


def test_in_place_change_through_a_view_is_respected():
    def function(s, x):
        y = s.conv(x)
        view = y.view(y.size(0), -1)
        y.relu_()
        return view + 1  # sees the change

    fast = convert_and_compare(Net(function, conv=conv()), X)
    assert "relu_" in operators(fast)


def test_in_place_change_of_the_input_between_convolution_and_addition():
    def function(s, x):
        y = F.gelu(x)
        view = y[:, :2]
        z = s.conv(y)
        y.mul_(2)  # after conv has read it; kept in place, as `view` must see it
        return z + F.pad(view, (0, 0, 0, 0, 0, 2))

    fast = convert_and_compare(Net(function, conv=conv()), X)
    assert not fast.layers[0].residual


def test_tied_weights_and_modules_used_twice():
    model = Net(lambda s, x: s.b(F.relu(s.a(F.relu(s.a(x))))), a=conv(), b=conv(bias=False))
    model.b.weight = model.a.weight
    masking.attach_column_mask(model.a, torch.rand(9, 8) > 0.4)  # not on b, though it has the same weight
    fast = convert_and_compare(model, X, strict=True)
    assert ["mask" in node.kwargs for node in fast.graph.nodes] == [True, True, False]
    assert sorted(fast.graph.tensors) == ["a_bias", "a_mask", "a_packed"]


def test_one_weight_with_two_batch_norms():
    model = Net(
        lambda s, x: s.b(s.conv(x)) - s.a(s.conv(x)),
        conv=conv(),
        a=nn.BatchNorm2d(4, eps=1e-5),
        b=nn.BatchNorm2d(4, eps=0.5),
    )
    for name in ("weight", "bias", "running_mean", "running_var"):  # the same but for eps
        setattr(model.b, name, getattr(model.a, name))
    assert operators(convert_and_compare(randomise(model), X)) == ["conv2d.packed"] * 2 + ["sub.Tensor"]


def test_constant_residual():
    model = Net(
        lambda s, x: (s.conv(x) + s.other.weight).view(4, 9, 8), conv=conv(), other=nn.Conv2d(4, 1, (9, 8))
    )
    fast = convert_and_compare(model, X[:1], batch=1)
    assert fast.layers[0].residual and "other_weight" in fast.graph.tensors


def test_functional_use_of_a_masked_layers_weight_is_not_masked():
    model = Net(lambda s, x: s.conv(x) - F.conv2d(x, s.conv.weight, padding=1), conv=conv())
    masking.attach_column_mask(model.conv, torch.rand(9, 8) > 0.4)
    fast = convert_and_compare(model, X)
    assert ["mask" in n.kwargs for n in fast.graph.nodes if n.op.startswith("semisparse")] == [True, False]


def test_equal_masks_are_stored_once():
    model = Net(lambda s, x: s.b(s.a(x)), a=conv(), b=conv())
    mask = torch.rand(9, 8) > 0.4
    for module in (model.a, model.b):
        masking.attach_column_mask(module, mask)
    fast = convert_and_compare(model, X)
    assert sum(name.endswith("mask") for name in fast.graph.tensors) == 1


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)},
        {"groups": 2},
        {"groups": 4},
        {"padding": "same"},
        {"padding": "valid"},
        {"padding": "same", "dilation": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 2, "padding_mode": "circular"},
    ],
)
def test_convolution_arguments(options, masked):
    model = randomise(
        Net(lambda s, x: F.relu(s.bn(s.conv(x))), conv=nn.Conv2d(4, 8, 3, **options), bn=nn.BatchNorm2d(8))
    )
    if masked:
        mask_randomly(model, X)
    fast = convert_and_compare(model, X, strict=True)
    assert fast.layers[0].packed and fast.layers[0].activation == "relu"


class TestDenseFallback:
    """What the operator cannot run stays a dense operator, visibly, with its mask applied."""

    def check(self, model, *inputs, reason):
        fast = ss.convert(model, inputs)
        with torch.inference_mode():
            expected, result = model.eval()(*inputs), fast(*inputs)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
        assert not any(layer.packed for layer in fast.layers)
        assert reason in fast.layers[0].reasons[0]
        if fast.layers[0].wasted:
            with pytest.raises(ValueError, match="sparse but would run densely(.|\n)*strict=False"):
                ss.convert(model, inputs, strict=True)
        else:
            ss.convert(model, inputs, strict=True)  # nothing is lost by running a dense layer densely
        return fast

    def test_float64(self):
        model = randomise(
            Net(lambda s, x: F.relu(s.bn(s.conv(x))), conv=conv(), bn=nn.BatchNorm2d(4))
        ).double()
        self.check(mask_randomly(model, X.double()), X.double(), reason="torch.float64")

    def test_float16(self):
        model = Net(lambda s, x: s.conv(x), conv=conv()).half()
        fast = self.check(mask_randomly(model, X.half()), X.half(), reason="torch.float16")
        assert fast.layers[0].wasted

    @pytest.mark.filterwarnings("ignore:Using padding='same'")
    def test_even_kernel_with_same_padding(self):
        model = Net(lambda s, x: s.conv(x), conv=nn.Conv2d(4, 4, 2, padding="same"))
        self.check(mask_randomly(model, X), X, reason="odd kernel size")

    def test_unbatched_input(self):
        model = Net(lambda s, x: s.conv(x[0]), conv=conv())
        self.check(mask_randomly(model, X), X, reason="3 dimensions")

    def test_weight_computed_from_the_input(self):
        model = Net(lambda s, x: F.conv2d(x, x[:1, :, :3, :3]))
        self.check(model, X, reason="weight is computed")

    @pytest.mark.parametrize("layer", [nn.Conv1d(9, 3, 3), nn.ConvTranspose1d(9, 3, 3)])
    def test_one_dimensional(self, layer):
        self.check(Net(lambda s, x: s.layer(x[:, 0]), layer=layer), X, reason="is not a convolution that")

    def test_transposed(self):
        model = Net(lambda s, x: s.layer(x), layer=nn.ConvTranspose2d(4, 6, 3, 2))
        fast = self.check(model, X, reason="conv_transpose2d")
        assert not fast.layers[0].wasted
        with torch.no_grad():
            model.layer.weight[0] = 0
        assert self.check(model, X, reason="conv_transpose2d").layers[0].wasted
        layer = ss.statistics(fast).layers[0]
        assert layer.output_size == (19, 17) and layer.macs_dense == 4 * 6 * 9 * 9 * 8


def test_linear_layers_with_their_activation():
    model = Net(
        lambda s, x: s.last(F.gelu(s.second(F.silu(s.first(x))))),
        first=nn.Linear(8, 12), second=nn.Linear(12, 9, bias=False), last=nn.Linear(9, 4),
    )  # fmt: skip
    with torch.no_grad():
        model.first.weight[torch.rand(12, 8) < 0.7] = 0
    fast = convert_and_compare(model, X, strict=True)
    assert operators(fast) == ["linear", "linear", "gelu", "linear"]
    first, second, _ = fast.layers
    assert first.packed and first.activation == "silu" and first.weight_sparsity > 0.5
    assert "gelu" in second.notes[0] and not fast.layers[2].reasons
    layer = ss.statistics(fast).layers[0]
    assert layer.weight_shape == (12, 8) and layer.bytes_packed < layer.bytes_dense


def test_linear_layers_that_the_operator_cannot_run():
    model = Net(lambda s, x: F.linear(x, x[0, 0, :3]) + s.fc(x.double()).float(), fc=nn.Linear(8, 3).double())
    fast = convert_and_compare(model, X)
    assert [layer.packed for layer in fast.layers] == [False, False]
    assert "weight is computed from the input" in fast.layers[0].reasons[0]
    assert "the input is torch.float64" in fast.layers[1].reasons[0]
    with torch.no_grad():
        model.fc.weight[:, 0] = 0
    with pytest.raises(ValueError, match="fc: the input is torch.float64"):
        ss.convert(model, X, strict=True)


def test_another_hook_between_convolution_and_mask():
    model = Net(lambda s, x: s.conv(x), conv=conv())
    model.conv.register_forward_hook(lambda module, args, output: output + 1)
    mask_randomly(model, X)
    fast = convert_and_compare(model, X)
    assert fast.layers[0].packed and "does not directly follow" in fast.layers[0].reasons[0]
    with pytest.raises(ValueError, match="does not directly follow"):
        ss.convert(model, X, strict=True)


@pytest.mark.filterwarnings("ignore:The tensor attribute")
def test_pruned_and_normalised_weights_are_folded():
    model = Net(lambda s, x: s.b(s.a(x)), a=conv(), b=nn.utils.parametrizations.weight_norm(conv()))
    prune.l1_unstructured(model.a, "weight", 0.6)
    fast = convert_and_compare(model, X, strict=True)
    assert operators(fast) == ["conv2d.packed"] * 2
    assert fast.layers[0].weight_sparsity == pytest.approx(0.6, abs=0.01)


def test_negative_zeros_are_not_stored():
    dense, pruned = (Net(lambda s, x: s.conv(x), conv=conv()) for _ in range(2))
    with torch.no_grad():
        pruned.conv.weight.copy_(-torch.rand(4, 4, 3, 3) * (torch.rand(4, 4, 3, 3) > 0.9))
    assert pruned.conv.weight.signbit().all()
    sizes = [ss.convert(model, X).get_buffer("conv_packed").numel() for model in (dense, pruned)]
    assert sizes[1] < 0.5 * sizes[0]
    assert ss.statistics(pruned).layers[0].bytes_packed == sizes[1]
    convert_and_compare(pruned, X)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d((3,), padding=1),
        lambda x: F.max_pool2d(x, [2, 3], dilation=(2, 1)),
        lambda x: torch.cat([x, y := F.max_pool2d(x, 5, 1, 2), F.max_pool2d(y, 5, 1, 2)], 1),  # SPPF
    ],
)
def test_max_pooling(pool):
    fast = convert_and_compare(Net(lambda s, x: pool(s.conv(x)), conv=conv()), X)
    pools = [node.op for node in fast.graph.nodes if "max_pool" in node.op]
    assert set(pools) == {"semisparse.max_pool2d.default"}


def test_max_pooling_of_other_inputs_stays():
    for pool in (lambda x: F.max_pool2d(x[0], 2), lambda x: F.max_pool2d(x.double(), 2).float()):
        fast = convert_and_compare(Net(lambda s, x, pool=pool: pool(s.conv(x)), conv=conv()), X)
        assert "aten.max_pool2d.default" in [node.op for node in fast.graph.nodes]


def test_dropout_vanishes():
    model = Net(
        lambda s, x: s.fc(s.drop(s.conv(s.drop2(x)).flatten(1))),
        conv=conv(),
        drop=nn.Dropout(0.5, inplace=True),
        drop2=nn.Dropout2d(0.5),
        fc=nn.Linear(4 * 72, 3),
    )
    assert operators(convert_and_compare(model, X)) == ["conv2d.packed", "flatten.using_ints", "linear"]
