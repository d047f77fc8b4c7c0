"""The operators inside graphs: opcheck, fake tensors, torch.compile, torch.export, autocast."""

import pytest
import torch
from cases import cases, examples
from hypothesis import given, settings
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck


def sample_calls():
    """(overload name, args, kwargs) covering every argument, with and without gradients."""
    ops = torch.ops.semisparse
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 4, 6, 7, generator=g), torch.randn(8, 2, 3, 3, generator=g)
    extra = dict(
        mask=torch.rand(3, 4, generator=g) < 0.6,
        fill=torch.randn(8, generator=g),
        activation="silu",
        residual=torch.randn(2, 8, 3, 4, generator=g),
    )
    geometry = (torch.randn(8, generator=g), [2, 2], [1, 1], [1, 1], 2)
    packed = ops.pack_weight(w, 2)

    def grads(*tensors):
        return [t.clone().requires_grad_() for t in tensors]

    full = extra | dict(zip(("fill", "residual"), grads(extra["fill"], extra["residual"]), strict=True))
    xg, wg, bg = grads(x, w, geometry[0])
    return {
        "plain": (ops.conv2d.default, (x, w, *geometry), extra),
        "plain defaults": (ops.conv2d.default, (torch.randn(2, 4, 5, 5), torch.randn(3, 4, 1, 1)), {}),
        "plain gradients": (ops.conv2d.default, (xg, wg, bg, *geometry[1:]), full),
        "packed": (ops.conv2d.packed, (x, packed, [8, 2, 3, 3], *geometry), extra),
        "packed gradients": (ops.conv2d.packed, (xg, packed, [8, 2, 3, 3], bg, *geometry[1:]), full),
        "pack": (ops.pack_weight.default, (w, 2), {}),
        "pack gradients": (ops.pack_weight.default, (wg, 2), {}),
        "unpack": (ops.unpack_weight.default, (packed,), {}),
        "unpack shaped": (ops.unpack_weight.shaped, (packed, [8, 2, 3, 3], 2), {}),
    }


@pytest.mark.parametrize("name", sample_calls())
@pytest.mark.arm
def test_opcheck(name):
    op, args, kwargs = sample_calls()[name]
    opcheck(op, args, kwargs)


@settings(max_examples=examples(60))
@given(case=cases())
def test_fake_tensors_have_the_metadata_of_real_ones(ops, case):
    packed = ops.pack_weight(case.args[1], case.groups)
    real = ops.conv2d(*case.args, **case.kwargs)
    with FakeTensorMode() as mode:
        fake_args = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in case.args]
        fake_kwargs = {
            k: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in case.kwargs.items()
        }
        shape = list(fake_args[1].shape)
        plain = ops.conv2d(*fake_args, **fake_kwargs)
        from_packed = ops.conv2d.packed(
            fake_args[0], mode.from_tensor(packed), shape, *fake_args[2:], **fake_kwargs
        )
    for fake in (plain, from_packed):
        assert (fake.shape, fake.dtype, fake.stride(), fake.device) == (
            real.shape, real.dtype, real.stride(), real.device
        )  # fmt: skip


class Block(torch.nn.Module):
    """Two packed convolutions with everything, between operators of torch itself."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        weight = torch.randn(8, 8, 3, 3, generator=g)
        weight[torch.rand(weight.shape, generator=g) < 0.5] = 0
        self.register_buffer("packed", torch.ops.semisparse.pack_weight(weight))
        self.register_buffer("mask", torch.rand(10, 10, generator=g) < 0.7)
        self.register_buffer("fill", torch.randn(8, generator=g))
        self.bias = torch.nn.Parameter(torch.randn(8, generator=g))
        self.stem = torch.nn.Conv2d(3, 8, 1)

    def forward(self, x):
        conv, shape = torch.ops.semisparse.conv2d.packed, [8, 8, 3, 3]
        x = self.stem(x)
        y = conv(x, self.packed, shape, self.bias, 1, 1, mask=self.mask, fill=self.fill, activation="relu")
        y = conv(y, self.packed, shape, padding=1, activation="hardswish", residual=x)
        return y.mean((2, 3)) * 2


@pytest.fixture(scope="module")
def block():
    torch.manual_seed(0)
    return Block()


def test_compile_without_graph_breaks(block):
    compiled = torch.compile(block, fullgraph=True, dynamic=True)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 3, 10, 10)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), block(x), rtol=1e-5, atol=1e-5)
    torch._dynamo.reset()


def test_compile_with_gradients(block):
    x = torch.randn(2, 3, 10, 10)

    def gradients(function):
        block.zero_grad()
        function(x).square().sum().backward()
        return {name: p.grad.clone() for name, p in block.named_parameters()}

    expected, found = gradients(block), gradients(torch.compile(block, fullgraph=True, backend="aot_eager"))
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-3)
    torch._dynamo.reset()


def test_export_with_dynamic_batch(block, tmp_path):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(block.eval(), (torch.randn(2, 3, 10, 10),), dynamic_shapes=({0: batch},))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("semisparse.conv2d.packed") == 2
    torch.export.save(program, tmp_path / "block.pt2")
    loaded = torch.export.load(tmp_path / "block.pt2").module()
    for size in (1, 2, 7):
        x = torch.randn(size, 3, 10, 10)
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), block(x), rtol=1e-5, atol=1e-5)


def test_export_with_dynamic_height_and_width(ops):
    class Plain(torch.nn.Module):
        def forward(self, x):
            return ops.conv2d(x, torch.ones(3, 2, 3, 3), None, 2, 1, activation="sigmoid")

    sizes = {2: torch.export.Dim("height", min=4, max=512), 3: torch.export.Dim("width", min=4, max=512)}
    program = torch.export.export(Plain(), (torch.randn(1, 2, 9, 12),), dynamic_shapes=(sizes,))
    for shape in [(4, 5), (31, 18)]:
        x = torch.randn(1, 2, *shape)
        assert torch.equal(program.module()(x), Plain()(x))


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)  # the default since torch 2.10
def test_data_dependent_packing_inside_a_graph(ops):
    @torch.compile(fullgraph=True, backend="aot_eager")
    def function(x, w):
        return ops.conv2d.packed(x, ops.pack_weight(w), [3, 2, 3, 3]) + 1

    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    assert torch.equal(function(x, w), ops.conv2d.packed(x, ops.pack_weight(w), [3, 2, 3, 3]) + 1)
    torch._dynamo.reset()


def test_autocast_computes_in_float32(ops):
    x, w = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    packed = ops.pack_weight(w)
    with torch.autocast("cpu", torch.bfloat16):
        low = torch.nn.functional.conv2d(x, w, padding=1)
        assert low.dtype == torch.bfloat16
        for y in (ops.conv2d(low, w), ops.conv2d.packed(low, packed, [4, 4, 3, 3])):
            assert y.dtype == torch.float32
            torch.testing.assert_close(y, ops.conv2d(low.float(), w), rtol=1e-5, atol=1e-5)


def test_torchscript_and_fx_see_one_operator(ops):
    from torch.fx import symbolic_trace

    packed = ops.pack_weight(torch.randn(3, 2, 3, 3))
    graph = symbolic_trace(lambda x: ops.conv2d.packed(x, packed, [3, 2, 3, 3], activation="relu"))
    assert [n.target for n in graph.graph.nodes if n.op == "call_function"] == [ops.conv2d.packed]
    x = torch.randn(1, 2, 5, 5)
    assert torch.equal(graph(x), ops.conv2d.packed(x, packed, [3, 2, 3, 3], activation="relu"))
