"""Networks computed in another order give the same."""

import numpy as np
import pytest
import torch
from conversions import Net, mask_randomly, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import semisparse as ss
from semisparse import runtime
from semisparse.runtime import Network
from semisparse.runtime.rewriting import convolve_before_upsampling


def merging(coarse=8, fine=6, outputs=8, first=True, scale=2, parts=1, kernel=1, reread=False):
    """Half-size features, upsampled beside finer ones, into a convolution."""

    def function(self, x):
        up = self.up(self.coarse(x))
        others = [self.fine(x) * (i + 1) if i else self.fine(x) for i in range(parts)]
        joined = torch.cat([up, *others] if first else [*others, up], 1)
        y = torch.relu(self.merge(joined))
        return y + joined[:, :1] if reread else y

    return randomise(
        Net(
            function,
            coarse=nn.Conv2d(3, coarse, 3, stride=scale, padding=1),
            fine=nn.Conv2d(3, fine, 3, padding=1),
            up=nn.Upsample(scale_factor=scale, mode="nearest"),
            merge=nn.Conv2d(coarse + parts * fine, outputs, kernel, padding=kernel // 2),
        )
    )


def load(model, tmp_path, size=12):
    converted = ss.convert(model, torch.randn(2, 3, size, size), free_size=False)
    ss.save(converted, tmp_path / "model.safetensors")
    return converted, runtime.load(tmp_path / "model.safetensors")


def largest_difference(converted, network: Network, size=12):
    worst = 0.0
    for batch in (1, 2, 1):
        x = np.random.default_rng(batch).standard_normal((batch, 3, size, size), dtype=np.float32)
        with torch.inference_mode():
            expected = converted(torch.from_numpy(x)).numpy()
        worst = max(worst, float(np.abs(network(x) - expected).max() / np.abs(expected).max()))
    return worst


def upsampled_channels(network: Network) -> int:
    """Of the result of the (only) upsampling."""
    plan = next(iter(network._plans.values()))[0]
    (node,) = (n for n in plan.graph.nodes if "upsample" in n.op)
    return plan._fixed[node.name].shape[1]


@settings(max_examples=8, deadline=None)
@given(
    coarse=st.integers(1, 12),
    fine=st.integers(1, 9),
    outputs=st.integers(1, 12),
    first=st.booleans(),
    scale=st.sampled_from([2, 3]),
    parts=st.integers(1, 2),
    kernel=st.sampled_from([1, 1, 3]),
    reread=st.booleans(),
)
def test_any_shape_gives_the_same(tmp_path_factory, **shape):
    torch.manual_seed(0)
    model = merging(**shape)
    converted, network = load(model, tmp_path_factory.mktemp("model"))
    assert largest_difference(converted, network) < 1e-5
    # Channels are only known of convolutions, so operands before the upsampled one must be such.
    known = shape["first"] or shape["parts"] == 1
    moved = known and shape["kernel"] == 1 and not shape["reread"] and shape["coarse"] >= shape["outputs"]
    assert upsampled_channels(network) == (shape["outputs"] if moved else shape["coarse"])


def test_masked_convolutions_stay_whole(tmp_path):
    """A skipped pixel holds its fill, not fill and residual."""
    torch.manual_seed(0)
    model = mask_randomly(merging(), torch.randn(1, 3, 12, 12))
    converted, network = load(model, tmp_path)
    graph, _ = convolve_before_upsampling(converted.graph, {})
    assert graph is converted.graph
    assert largest_difference(converted, network) < 1e-5


def test_damaged_weights_are_still_refused(tmp_path):
    converted, _ = load(merging(), tmp_path)
    tensors = {name: t.numpy().copy() for name, t in converted.named_buffers()}
    (packed,) = (name for name in tensors if name.startswith("merge") and tensors[name].dtype == np.uint8)
    tensors[packed][20:60] ^= 255
    with pytest.raises(ValueError):
        convolve_before_upsampling(converted.graph, tensors)
