"""torchvision's classifiers: converted against masked training model."""

import pytest
import torch
from conversions import convert_and_compare, mask_randomly, operators, randomise

models = pytest.importorskip("semisparse._torchvision").torchvision.models


@pytest.mark.parametrize(
    "name, size, convolutions, separate",
    [
        ("resnet18", (65, 48), 20, {"max_pool2d", "adaptive_avg_pool2d", "flatten.using_ints", "linear"}),
        ("resnet34", (64, 64), 36, {"max_pool2d", "adaptive_avg_pool2d", "flatten.using_ints", "linear"}),
        ("resnet50", (40, 71), 53, {"max_pool2d", "adaptive_avg_pool2d", "flatten.using_ints", "linear"}),
        ("vgg16_bn", (32, 37), 13, {"max_pool2d", "adaptive_avg_pool2d", "flatten.using_ints", "linear"}),
        ("mobilenet_v2", (33, 64), 52, {"adaptive_avg_pool2d", "flatten.using_ints", "linear"}),
    ],
)
def test_masked(name, size, convolutions, separate):
    torch.manual_seed(0)
    example = torch.randn(1, 3, *size)
    model = mask_randomly(randomise(getattr(models, name)()), example)
    fast = convert_and_compare(model, example, batch=2, strict=True)
    # Every BatchNorm, every activation after a layer with weights and every residual addition is gone.
    assert operators(fast).count("conv2d.packed") == convolutions
    assert set(operators(fast)) == separate | {"conv2d.packed"}
    assert all(
        layer.batch_norm and layer.column_sparsity > 0 for layer in fast.layers if layer.kind == "conv2d"
    )


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_unmasked_model_takes_other_sizes(name):
    torch.manual_seed(0)
    model = randomise(getattr(models, name)()).eval()
    fast = convert_and_compare(model, torch.randn(2, 3, 64, 64), batch=1, strict=True)
    for size in ((65, 64), (64, 97), (128, 72)):
        x = torch.randn(1, 3, *size)
        with torch.inference_mode():
            torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-4)


def test_only_some_layers_masked():
    torch.manual_seed(0)
    example = torch.randn(2, 3, 64, 64)
    model = mask_randomly(randomise(models.resnet18()), example, only={"layer2.0.conv1", "layer4.1.conv2"})
    fast = convert_and_compare(model, example)
    masked = {layer.name for layer in fast.layers if layer.column_sparsity > 0}
    assert masked == {"layer2.0.conv1", "layer4.1.conv2"}
    with pytest.raises(ValueError, match=r"shape \(>=1, 3, 64, 64\).*\(1, 3, 72, 64\)"):
        fast(torch.randn(1, 3, 72, 64))
