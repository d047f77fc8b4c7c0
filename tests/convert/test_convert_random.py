"""Random small networks: whatever is put together, the converted network computes the same."""

import torch
import torch.nn.functional as F
from conversions import convert_and_compare, mask_randomly, randomise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

ACTIVATIONS = {
    "relu": F.relu,
    "relu_": lambda x: x.relu_(),
    "relu6": F.relu6,
    "silu": F.silu,
    "silu_": lambda x: F.silu(x, inplace=True),
    "leaky_relu": F.leaky_relu,
    "leaky_relu(0.2)": lambda x: F.leaky_relu(x, 0.2),
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
}

# One step takes one or two earlier values and appends a new one; all have 4 channels and equal sizes.
# In-place steps overwrite an earlier value, as residual blocks of real models do.
STEP = st.one_of(
    st.tuples(
        st.just("conv"),
        st.integers(0, 99),
        st.sampled_from([1, 3]),
        st.sampled_from([1, 2, 4]),
        st.booleans(),  # bias
        st.sampled_from(["none", "batch_norm", "batch_norm without affine", "batch_norm of the batch"]),
        st.booleans(),  # mask
    ),
    st.tuples(st.just("activation"), st.integers(0, 99), st.sampled_from(sorted(ACTIVATIONS))),
    st.tuples(st.just("add"), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.just("add_"), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.just("view"), st.integers(0, 99)),
    st.tuples(st.just("pool"), st.integers(0, 99)),
    st.tuples(st.just("cat"), st.integers(0, 99), st.integers(0, 99)),
)


class RandomNet(nn.Module):
    def __init__(self, steps, tied):
        super().__init__()
        self.steps, self.tied = steps, tied
        self.layers = nn.ModuleDict()
        for index, step in enumerate(steps):
            if step[0] == "conv":
                self.layers[f"conv{index}"] = self._layer(*step[2:6])

    def _layer(self, kernel, groups, bias, norm):
        layer = nn.Sequential(nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=groups, bias=bias))
        if norm != "none":
            layer.append(
                nn.BatchNorm2d(4, affine="without" not in norm, track_running_stats="of the" not in norm)
            )
        return layer

    def forward(self, x):
        values = [x * 1]
        for index, step in enumerate(self.steps):
            # The latest values are the most likely operands: that makes chains.
            picked = [
                values[-1 - min(int(n**0.5) // 2, len(values) - 1)] for n in step[1:3] if isinstance(n, int)
            ]
            kind, a, b = step[0], picked[0], picked[-1]
            if kind == "conv":
                layer = self.layers[f"conv{index}"]
                values.append(layer(a))
                if self.tied:
                    values.append(layer(values[-1]))
            elif kind == "activation":
                values.append(ACTIVATIONS[step[2]](a))
            elif kind == "add":
                values.append(a + b)
            elif kind == "add_":
                values.append(a.add_(b))
            elif kind == "view":
                values.append(a.flip(1).flatten(1).view(a.shape) if index % 2 else a.view(a.shape))
            elif kind == "pool":
                values.append(F.max_pool2d(a, 3, 1, 1))
            elif kind == "cat":
                values.append(torch.cat([a[:, :2], b[:, 2:]], 1))
        return tuple(values[-2:])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(steps=st.lists(STEP, min_size=2, max_size=9), tied=st.booleans(), seed=st.integers(0, 1000))
def test_converted_network_computes_the_same(steps, tied, seed):
    torch.manual_seed(seed)
    model = randomise(RandomNet(steps, tied), seed)
    example = torch.randn(2, 4, 5, 7)
    masked = {f"layers.conv{i}.0" for i, step in enumerate(steps) if step[0] == "conv" and step[6]}
    mask_randomly(model, example, only=masked)
    convert_and_compare(model, example, tolerance=1e-4, free_size=False)
