"""Models in the state that training leaves them in, and the comparison that every conversion must pass."""

import torch
from torch import nn

import semisparse as ss
from semisparse import masking


class Net(nn.Module):
    """A module made of named layers and a function of (self, x)."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random BatchNorm statistics and affine parameters: a conversion that confuses any of them shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name, low, high in (
                ("running_mean", -0.5, 0.5),
                ("running_var", 0.5, 2.0),
                ("weight", 0.5, 1.5),
                ("bias", -0.5, 0.5),
            ):
                tensor = getattr(module, name)
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
    return model


def mask_randomly(model: nn.Module, *example: torch.Tensor, ratio: float = 0.3, only=None) -> nn.Module:
    """A random column mask on every convolution (that `only` names), of the size it has for `example`."""
    sizes = {}

    def record(module, args, output):
        sizes[module] = output.shape[-2:]

    hooks = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model.eval()(*example)
    for hook in hooks:
        hook.remove()
    generator = torch.Generator().manual_seed(1)
    for name, module in model.named_modules():
        if module in sizes and (only is None or name in only):
            mask = torch.rand(sizes[module], generator=generator) > ratio
            mask.view(-1)[0] = False  # never all of it kept, however small the layer
            masking.attach_column_mask(module, mask)
    return model


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return ((value - expected).abs().max() / expected.abs().max().clamp_min(1e-6)).item()


def convert_and_compare(
    model: nn.Module, *example: torch.Tensor, batch: int = 3, tolerance: float = 1e-5, **options
):
    """Convert and compare with the model, on fresh inputs of another batch size; returns the result."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = model.training
    fast = ss.convert(model, example[0] if len(example) == 1 else example, **options)
    assert model.training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(batch, *x.shape[1:], generator=generator) for x in example]
    with torch.inference_mode():
        expected, result = model.eval()(*inputs), fast(*inputs)
    expected, result = (x if isinstance(x, (tuple, list)) else [x] for x in (expected, result))
    for value, reference in zip(result, expected, strict=True):
        assert value.shape == reference.shape
        assert relative_error(value, reference) < tolerance
    return fast


def operators(fast) -> list[str]:
    """Short names of a converted model's operators, in order: 'conv2d.packed', 'max_pool2d', ..."""
    return [
        node.op.removeprefix("aten.").removeprefix("semisparse.").removesuffix(".default")
        for node in fast.graph.nodes
    ]
