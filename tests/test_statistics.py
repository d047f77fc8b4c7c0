"""Sparsity, MACs and bytes, counted by hand for a small network."""

import pytest
import torch
from torch import nn

import semisparse as ss
from semisparse import masking


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, groups=8, bias=False)
        self.fc = nn.Linear(8, 5)
        with torch.no_grad():
            self.stem.weight[:, :, 0] = 0  # rows and columns of every kernel: 4 weights are left
            self.stem.weight[:, :, :, 0] = 0
            self.depthwise.weight[:2] = 0
            self.fc.weight[0, 0] = 0
        mask = torch.ones(6, 10, dtype=torch.bool)
        mask[0] = False
        masking.attach_column_mask(self.stem, mask)

    def forward(self, x):
        return self.fc(self.depthwise(torch.relu(self.stem(x))).mean((2, 3)))


X = torch.randn(2, 3, 6, 10)

SHAPES = {"stem": (8, 3, 3, 3), "depthwise": (8, 1, 3, 3), "fc": (5, 8)}
SCHEMES = {"stem": "pattern", "depthwise": "structured", "fc": "unstructured"}
WEIGHTS = {"stem": 5 / 9, "depthwise": 0.25, "fc": 1 / 40}
MACS = {"stem": (216 * 60, 96 * 50), "depthwise": (72 * 8, 54 * 8), "fc": (40, 39)}
BYTES = {"stem": 864, "depthwise": 288, "fc": 160}
CSR = {"stem": 96 * 8 + 36, "depthwise": 54 * 8 + 36, "fc": 39 * 8 + 24}


@pytest.mark.parametrize("converted", [False, True])
def test_counts(converted):
    model = Network()
    result = ss.statistics(ss.convert(model, X)) if converted else ss.statistics(model, X)
    layers = {layer.name: layer for layer in result.layers}
    assert list(layers) == ["stem", "depthwise", "fc"]
    for name, layer in layers.items():
        assert layer.kind == ("linear" if name == "fc" else "conv2d")
        assert layer.weight_shape == SHAPES[name] and layer.scheme == SCHEMES[name]
        assert layer.weight_sparsity == pytest.approx(WEIGHTS[name])
        assert layer.column_sparsity == pytest.approx(1 / 6 if name == "stem" else 0)
        assert (layer.macs_dense, layer.macs_kept) == MACS[name]
        assert (layer.bytes_dense, layer.bytes_csr) == (BYTES[name], CSR[name])
    assert layers["stem"].output_size == (6, 10) and layers["depthwise"].output_size == (2, 4)
    assert layers["depthwise"].groups == 8 and layers["fc"].bytes_packed > 0
    packed = torch.ops.semisparse.pack_weight(model.stem.weight.detach(), 1)
    assert layers["stem"].bytes_packed == packed.numel()
    assert result.macs_dense == sum(dense for dense, _ in MACS.values())
    assert result.macs_kept == sum(kept for _, kept in MACS.values())
    assert result.bytes_dense == 1312 and result.bytes_csr == sum(CSR.values())
    assert result.bytes_packed == sum(layer.bytes_packed for layer in result.layers)


def test_table_holds_every_layer_and_the_total():
    lines = str(ss.statistics(ss.convert(Network(), X))).splitlines()
    assert (
        lines[0].split()
        == "layer kind weight output scheme structure weights columns MACs kept bytes packed CSR".split()
        + ["not", "used"]
    )
    assert lines[2].split()[:6] == ["stem", "conv2d", "8x3x3x3", "6x10", "pattern", "1"]
    assert lines[2].split()[9:11] == ["55.6%", "16.7%"]
    assert lines[3].split()[:5] == ["depthwise", "conv2d", "8x1x3x3", "/8", "2x4"]
    assert lines[-1].startswith("total") and "61.2% fewer" in lines[-1]
    ends = [line.index("K", line.index("%")) for line in lines[2:5]]
    assert len(set(ends)) == 1  # numbers stand below each other


def test_without_an_example_only_masked_layers_have_a_size():
    result = ss.statistics(Network())
    assert [layer.output_size for layer in result.layers] == [(6, 10), None, ()]
    assert result.layers[0].macs_kept == MACS["stem"][1] and result.layers[1].macs_dense is None
    assert result.macs_dense is None and "?" in str(result)


def test_zeros_that_no_operator_can_use_are_named_before_conversion():
    conv = nn.ConvTranspose2d(2, 3, 2)
    assert ss.statistics(conv).layers[0].reasons == ()
    with torch.no_grad():
        conv.weight[0] = 0
    assert "no operator for conv_transpose2d" in ss.statistics(conv).layers[0].reasons[0]
    conv = nn.Conv2d(2, 3, 2).double()
    with torch.no_grad():
        conv.weight[0] = 0
    assert "with torch.float64 weights" in ss.statistics(conv).layers[0].reasons[0]


def test_the_model_is_left_as_it_was():
    model = Network().train()
    model.fc.eval()
    ss.statistics(model, X)
    assert model.training and model.stem.training and not model.fc.training
    assert all(len(module._forward_hooks) == (module is model.stem) for module in model.modules())


def test_layer_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.conv(nn.functional.max_pool2d(self.conv(x), 2))

    x = torch.randn(1, 2, 4, 4)
    assert ss.statistics(Twice(), x).macs_dense == 4 * (16 + 4)
    assert ss.statistics(ss.convert(Twice(), x)).macs_dense == 4 * (16 + 4)


def test_linear_layers_on_sequences_and_transposed_convolutions():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 3, 2, 2)
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.up(x))

    x = torch.randn(2, 2, 5, 4)
    for result in (ss.statistics(Other(), x), ss.statistics(ss.convert(Other(), x))):
        up, fc = result.layers
        assert (up.kind, up.output_size, up.macs_dense) == ("conv_transpose2d", (10, 8), 24 * 20)
        assert fc.macs_dense == 32 * 3 * 10


def test_reasons_of_a_dense_fallback_are_in_the_table():
    model = nn.Sequential(nn.Conv2d(2, 2, 3)).double()
    table = str(ss.statistics(ss.convert(model, torch.randn(1, 2, 5, 5).double())))
    assert "the input is torch.float64" in table.splitlines()[2]


def test_a_recipe_names_schemes_and_says_what_is_missing():
    recipe = ss.Recipe(
        {
            "_default": {"scheme": "unstructured", "ratio": 0.5, "columns": {"ratio": 0.2}},
            "fc": {"scheme": "block", "ratio": 0.1, "block": [2, 2], "columns": None},
            "_skip": [],
        }
    )
    stem, depthwise, fc = ss.statistics(Network(), X, recipe).layers
    assert (stem.scheme, depthwise.scheme, fc.scheme) == ("unstructured", "unstructured", "block")
    assert stem.structure.scheme == "pattern"
    assert not any("recipe" in reason for layer in (stem, fc) for reason in layer.reasons)
    assert "recipe removes columns here, but all are there" in depthwise.reasons[0]
    model = Network()
    nn.init.ones_(model.fc.weight)
    assert (
        "recipe removes weights here, but none is zero"
        in ss.statistics(model, X, recipe).layers[2].reasons[0]
    )
    with pytest.raises(ValueError, match="a recipe belongs to the training model"):
        ss.statistics(ss.convert(Network(), X), recipe=recipe)
    with pytest.raises(ValueError, match="names the layer 'other'"):
        ss.statistics(Network(), X, ss.Recipe({"other": {"columns": {"ratio": 0.2}}}))
