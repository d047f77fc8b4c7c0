"""`semisparse::linear` against float64, and everything else that an operator has to be."""

import pytest
import torch
import torch.nn.functional as F
from cases import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ACTIVATIONS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from semisparse.ops import linear, pack_weight, unpack_weight

STRUCTURES = ("dense", "unstructured", "blocks", "inputs", "features", "zero")


def make_weight(shape, structure, kept, generator):
    """Zeros of every structure that training makes; `blocks`: 8 features share their inputs."""
    weight = torch.randn(shape, generator=generator)
    out, inputs = shape
    used = {
        "dense": torch.ones(shape, dtype=torch.bool),
        "unstructured": torch.rand(shape, generator=generator) < kept,
        "blocks": (torch.rand((out + 7) // 8, inputs, generator=generator) < kept).repeat_interleave(8, 0)[
            :out
        ],
        "inputs": (torch.rand(1, inputs, generator=generator) < kept).expand(shape),
        "features": (torch.rand(out, 1, generator=generator) < kept).expand(shape),
        "zero": torch.zeros(shape, dtype=torch.bool),
    }[structure]
    return torch.where(used, weight, 0)


def make_rows(shape, layout, generator):
    if layout == "transposed":
        return torch.randn(*shape[:-2], shape[-1], shape[-2], generator=generator).transpose(-1, -2)
    if layout == "sliced":
        return torch.randn(*shape[:-1], shape[-1] + 3, generator=generator)[..., 1:-2]
    if layout == "strided":
        return torch.randn(*shape[:-1], 2 * shape[-1], generator=generator)[..., ::2]
    if layout == "expanded":
        return torch.randn(1, *shape[1:], generator=generator).expand(shape)
    return torch.randn(shape, generator=generator)


@st.composite
def calls(draw):
    """(input, weight, bias, activation); sizes cross vectors, panels and blocks of rows."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    inputs = draw(st.one_of(st.integers(1, 150), st.sampled_from([512, 1025])))
    shape = (draw(st.integers(1, 100)), inputs)
    batch = draw(st.sampled_from([(1,), (2,), (3,), (5,), (8,), (11,), (0,), (2, 3), (2, 0), (2, 2, 5)]))
    layout = draw(st.sampled_from(["contiguous", "sliced", "strided", "expanded"]))
    if len(batch) > 1 and draw(st.booleans()):
        layout = "transposed"
    weight = make_weight(shape, draw(st.sampled_from(STRUCTURES)), draw(st.sampled_from([0.1, 0.3, 0.7])), g)
    bias = torch.randn(shape[0], generator=g) if draw(st.booleans()) else None
    return make_rows((*batch, inputs), layout, g), weight, bias, draw(st.sampled_from(sorted(ACTIVATIONS)))


def expected(x, weight, bias, activation):
    return ACTIVATIONS[activation](F.linear(x, weight, bias))


def assert_matches(y, x, weight, bias, activation):
    wide = [None if t is None else t.double() for t in (x, weight, bias)]
    magnitude = F.linear(*[None if t is None else t.abs() for t in wide])
    want = expected(*wide, activation)
    assert y.dtype == torch.float32 and y.shape == want.shape and y.is_contiguous()
    assert not y.isnan().any()
    error = (y.double() - want).abs() / (3e-6 * magnitude + 2e-6)
    assert error.numel() == 0 or error.max() < 1


@settings(max_examples=examples(300))
@given(call=calls())
def test_any_call_matches_float64(call, poison):
    x, weight, bias, activation = call
    for packed in (pack_weight(weight), pack_weight(weight[:, :, None, None])):
        y = linear(x, packed, tuple(weight.shape), bias, activation=activation)
        assert_matches(y, x, weight, bias, activation)


def test_packed_as_a_one_by_one_convolution():
    weight = make_weight((6, 5), "unstructured", 0.5, torch.Generator().manual_seed(0))
    packed = pack_weight(weight)
    assert torch.equal(packed, pack_weight(weight[:, :, None, None]))
    assert torch.equal(unpack_weight(packed)[:, :, 0, 0], weight)


def test_threads_do_not_change_the_result(ops, threads):
    g = torch.Generator().manual_seed(0)
    for structure in ("dense", "unstructured", "blocks"):
        weight = make_weight((700, 512), structure, 0.3, g)
        packed = pack_weight(weight)
        for rows in (1, 3, 40):
            x = torch.randn(rows, 512, generator=g)
            results = []
            for count in (1, 2, 3):
                threads(count)
                results.append(ops.linear(x, packed, [700, 512]))
            assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


X, W = torch.randn(2, 4), torch.randn(6, 4)
BAD_CALLS = {
    "float64": (
        dict(input=X.double()),
        r"`input` must be float32 or float16, got Double; convert it with \.float",
    ),
    "scalar": (dict(input=torch.tensor(1.0)), r"shape \(\.\.\., IN\), got a scalar"),
    "features": (dict(input=X[:, :3]), r"has 3 features in its last dimension.*\[6, 4\] expects 4"),
    "shape of three": (dict(weight_shape=[6, 4, 1]), r"`weight_shape` must be \(OUT, IN\)|[Ee]xpected"),
    "shape 0": (dict(weight_shape=[0, 4]), r"`weight_shape` must be \(OUT, IN\), both at least 1"),
    "bias shape": (dict(bias=torch.zeros(4)), r"`bias` must have one value per output feature, shape \(6\)"),
    "bias dims": (dict(bias=torch.zeros(1, 6)), r"`bias`.*shape \[1, 6\]; flatten"),
    "bias dtype": (dict(bias=torch.zeros(6).half()), r"`bias` must be float32"),
    "packed dtype": (dict(packed=W), r"`packed` must be the one-dimensional uint8 tensor"),
    "activation": (dict(activation="gelu"), r"gelu.*relu6"),
}
BAD_BYTES = {
    "another shape": (pack_weight(W.t().contiguous()), r"packed weight has shape \(4, 6\).*\(6, 4\)"),
    "a convolution's": (pack_weight(torch.randn(6, 1, 2, 2)), r"shape \(6, 1, 2, 2\).*linear layer"),
    "groups": (pack_weight(torch.randn(6, 4, 1, 1), 2), r"groups=2.*linear layer"),
    "truncated": (pack_weight(W)[:-1], "truncated"),
    "empty": (torch.zeros(0, dtype=torch.uint8), "truncated"),
    "changed": (
        pack_weight(W).index_add(0, torch.tensor([90]), torch.tensor([1], dtype=torch.uint8)),
        "damaged",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(ops, name):
    change, message = BAD_CALLS[name]
    call = dict(input=X, packed=pack_weight(W), weight_shape=[6, 4], activation="none") | change
    with pytest.raises((RuntimeError, ValueError), match=message):
        ops.linear(**call)
    meta = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    with pytest.raises((RuntimeError, ValueError), match=message):
        ops.linear(**meta)


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_bytes(ops, name):
    packed, message = BAD_BYTES[name]
    with pytest.raises((RuntimeError, ValueError), match=message):
        ops.linear(X, packed, [6, 4])


def test_packing_refuses_what_is_no_weight(ops):
    for weight, groups, message in [
        (W, 2, "no groups"),
        (W.double(), 1, "float32"),
        (torch.zeros(0, 4), 1, r"\(OUT, IN\), both at least 1"),
        (torch.randn(2, 3, 4), 1, r"\(OC, IC/groups, KH, KW\)"),
    ]:
        with pytest.raises((RuntimeError, ValueError), match=message):
            ops.pack_weight(weight, groups)


def test_random_damage_never_goes_unnoticed(ops):
    g = torch.Generator().manual_seed(0)
    for _ in range(500):
        shape = tuple(torch.randint(1, 40, (2,), generator=g).tolist())
        packed = pack_weight(make_weight(shape, "unstructured", 0.4, g))
        at = torch.randint(packed.numel(), (1,), generator=g)
        if torch.rand(1, generator=g) < 0.5:
            packed = packed[: int(at)]
        else:
            packed[at] ^= torch.randint(1, 256, (1,), generator=g, dtype=torch.uint8)
        with pytest.raises((RuntimeError, ValueError)):
            ops.linear(torch.zeros(1, shape[1]), packed, list(shape))


@settings(max_examples=examples(60))
@given(call=calls())
def test_gradients_are_those_of_the_formula(call):
    x, weight, bias, activation = call
    if x.numel() == 0:
        return
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in (x, bias)]
    wide = [None if t is None else t.detach().double().clone().requires_grad_() for t in (x, bias)]
    y = linear(leaves[0], pack_weight(weight), tuple(weight.shape), leaves[1], activation=activation)
    z = expected(wide[0], weight.double(), wide[1], activation)
    # Where the activation has a corner, rounding decides on which side a value is.
    before = F.linear(wide[0], weight.double(), wide[1])
    corner = torch.stack([(before - c).abs() < 1e-4 for c in (-3, 0, 3, 6)]).any(0)
    upstream = torch.where(corner, 0, torch.randn(y.shape, generator=torch.Generator().manual_seed(1)))
    y.backward(upstream)
    z.backward(upstream.double())
    for ours, theirs in zip(leaves, wide, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("activation", ["none", "sigmoid", "silu"])
def test_second_derivative(ops, activation):
    x = torch.randn(3, 5, requires_grad=True)
    weight = torch.randn(4, 5)

    def second(function):
        (grad,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    ours = second(lambda x: ops.linear(x, pack_weight(weight), [4, 5], activation=activation))
    theirs = second(lambda x: expected(x, weight, None, activation))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_forward_mode_is_refused(ops):
    x = torch.randn(2, 4)
    with pytest.raises(RuntimeError, match="semisparse::linear has no forward-mode derivative"):
        torch.func.jvp(lambda x: ops.linear(x, pack_weight(W), [6, 4]), (x,), (x,))


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_opcheck(ops, activation, gradient):
    x, bias = (t.clone().requires_grad_(gradient) for t in (torch.randn(2, 3, 4), torch.randn(6)))
    opcheck(ops.linear.default, (x, pack_weight(W), [6, 4], bias), {"activation": activation})
    opcheck(ops.linear.default, (x, pack_weight(W), [6, 4]), {})
    opcheck(ops.pack_weight.default, (W,), {})


@settings(max_examples=examples(60))
@given(call=calls())
def test_fake_tensors_have_the_metadata_of_real_ones(ops, call):
    x, weight, bias, activation = call
    packed = pack_weight(weight)
    real = ops.linear(x, packed, list(weight.shape), bias, activation=activation)
    with FakeTensorMode() as mode:
        fake_bias = None if bias is None else mode.from_tensor(bias)
        fake = ops.linear(mode.from_tensor(x), mode.from_tensor(packed), list(weight.shape), fake_bias)
    assert (fake.shape, fake.dtype, fake.stride(), fake.device) == (
        real.shape, real.dtype, real.stride(), real.device
    )  # fmt: skip


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.scale = torch.nn.Parameter(torch.randn(20, generator=g))
        self.register_buffer("first", pack_weight(make_weight((30, 20), "unstructured", 0.3, g)))
        self.register_buffer("second", pack_weight(make_weight((7, 30), "blocks", 0.5, g)))

    def forward(self, x):
        op = torch.ops.semisparse.linear
        return op(op(x * self.scale, self.first, [30, 20], activation="relu"), self.second, [7, 30])


def test_compile_with_gradients():
    model, x = Head(), torch.randn(5, 20)

    def gradient(function):
        model.zero_grad()
        function(x).square().sum().backward()
        return model.scale.grad.clone()

    expected = gradient(model)
    compiled = gradient(torch.compile(model, fullgraph=True, backend="aot_eager"))
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-3)
    torch._dynamo.reset()


def test_export_with_free_batch():
    model = Head()
    free = {0: torch.export.Dim("n", max=64)}
    program = torch.export.export(model, (torch.randn(2, 20),), dynamic_shapes=(free,))
    assert [str(n.target) for n in program.graph.nodes].count("semisparse.linear.default") == 2
    for rows in (1, 3, 33):
        x = torch.randn(rows, 20)
        assert torch.equal(program.module()(x), model(x))


def test_autocast_computes_in_float32(ops):
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.linear(X.bfloat16(), pack_weight(W), [6, 4])
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, F.linear(X.bfloat16().float(), W), rtol=1e-5, atol=1e-5)


def test_changed_bytes_are_arranged_anew(ops):
    packed = pack_weight(W)
    before = ops.linear(X, packed, [6, 4])
    packed.copy_(pack_weight(2 * W))
    torch.testing.assert_close(ops.linear(X, packed, [6, 4]), 2 * before)
