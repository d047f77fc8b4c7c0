"""Bad input gets words: what was given, what is expected, what to do. Never a crash."""

import pytest
import torch

X, W = torch.randn(2, 4, 6, 7), torch.randn(8, 4, 3, 3)
OUT = (2, 8, 4, 5)

BAD_CALLS = {
    "input float64": (
        dict(input=X.double()),
        r"`input` must be float32 or float16, got Double; convert it with \.float",
    ),
    "input bfloat16": (dict(input=X.bfloat16()), r"`input` must be float32 or float16, got BFloat16"),
    "input integer": (dict(input=X.int()), r"`input` must be float32 or float16, got Int"),
    "input 3-d": (dict(input=X[0]), r"shape \(N, C, H, W\), got shape \[4, 6, 7\]; add the batch dimension"),
    "input 5-d": (dict(input=X[None]), r"shape \(N, C, H, W\), got shape \[1, 2, 4, 6, 7\]"),
    "channels": (dict(input=torch.randn(2, 5, 6, 7)), r"5 channels.*\(8, 4, 3, 3\) with 1 groups expects 4"),
    "no channels": (dict(input=torch.randn(2, 0, 6, 7)), r"0 channels.*expects 4"),
    "input too small": (
        dict(input=torch.randn(2, 4, 2, 7)),
        r"too small: its height is 2.*kernel covers 3.*padding",
    ),
    "input too narrow": (dict(input=torch.randn(2, 4, 7, 2)), r"too small: its width is 2"),
    "input empty": (dict(input=torch.randn(2, 4, 0, 7)), r"too small: its height is 0"),
    "dilated kernel": (dict(dilation=4), r"too small: its height is 6.*kernel covers 9"),
    "stride 0": (dict(stride=0), r"`stride` must be at least 1.*got \[0, 0\]"),
    "stride negative": (dict(stride=[1, -1]), r"`stride` must be at least 1.*got \[1, -1\]"),
    "stride of three": (dict(stride=[1, 1, 1]), r"`stride` must be one number or \(vertical, horizontal\)"),
    "padding negative": (dict(padding=-1), r"`padding` must be at least 0"),
    "padding huge": (dict(padding=2**40), r"`padding` must be at least 0 \(and at most 2\^30\)"),
    "dilation 0": (dict(dilation=0), r"`dilation` must be at least 1"),
    "dilation overflow": (dict(dilation=2**62), r"`dilation` must be at least 1 \(and at most"),
    "groups 0": (dict(groups=0), r"`groups` must be at least 1, got 0"),
    "groups negative": (dict(groups=-2), r"`groups` must be at least 1, got -2"),
    "groups not dividing": (dict(groups=3), r"multiple of `groups`, got 8 output channels and 3 groups"),
    "groups huge": (dict(groups=2**62), r"`groups` must be at least 1"),
    "bias shape": (
        dict(bias=torch.zeros(4)),
        r"`bias` must have one value per output channel, shape \(8\), got.*\[4\]",
    ),
    "bias dims": (dict(bias=torch.zeros(1, 8)), r"`bias`.*shape \[1, 8\]; flatten"),
    "bias dtype": (dict(bias=torch.zeros(8).half()), r"`bias` must be float32, got Half"),
    "fill shape": (dict(fill=torch.zeros(1)), r"`fill` must have one value per output channel"),
    "fill dtype": (dict(fill=torch.zeros(8).long()), r"`fill` must be float32"),
    "mask dtype": (
        dict(mask=torch.ones(4, 5)),
        r"`mask` must be bool, True = computed, got Float; convert.*bool",
    ),
    "mask dtype uint8": (dict(mask=torch.ones(4, 5, dtype=torch.uint8)), r"`mask` must be bool"),
    "mask of the input": (
        dict(mask=torch.ones(6, 7).bool()),
        r"shape \(4, 5\), got shape \[6, 7\].*resample",
    ),
    "mask transposed": (dict(mask=torch.ones(5, 4).bool()), r"`mask`.*shape \(4, 5\), got shape \[5, 4\]"),
    "mask 3-d": (dict(mask=torch.ones(1, 4, 5).bool()), r"`mask`.*got shape \[1, 4, 5\]"),
    "residual shape": (
        dict(residual=torch.zeros(1, 8, 4, 5)),
        r"`residual`.*\(2, 8, 4, 5\), got shape \[1, 8, 4, 5\]",
    ),
    "residual dims": (
        dict(residual=torch.zeros(8, 4, 5)),
        r"`residual`.*\(2, 8, 4, 5\), got shape \[8, 4, 5\]",
    ),
    "residual dtype": (dict(residual=torch.zeros(*OUT).double()), r"`residual` must be float32"),
    "activation": (dict(activation="gelu"), r"gelu.*none.*relu.*relu6.*silu.*leaky_relu.*hardswish.*sigmoid"),
    "activation case": (dict(activation="ReLU"), r"ReLU.*relu"),
    "activation empty": (dict(activation=""), r"relu6"),
    "meta bias": (dict(bias=torch.zeros(8, device="meta")), r"`bias` is on meta but `input` is on cpu"),
    "sparse input": (
        dict(input=X.to_sparse()),
        r"plain \(strided\) CPU tensors, but got a Sparse tensor on cpu.*to_dense",
    ),
}
BAD_WEIGHTS = {
    "float64": (W.double(), r"`weight` must be float32, got Double"),
    "3-d": (W[0], r"`weight` must have shape \(OC, IC/groups, KH, KW\), got shape \[4, 3, 3\]"),
    "no filter": (W[:0], r"all at least 1, got \[0, 4, 3, 3\]"),
    "no tap": (W[:, :, :0], r"all at least 1"),
}
BAD_PACKED = {
    "float": (torch.zeros(100), r"`packed` must be the one-dimensional uint8 tensor.*got Float"),
    "2-d": (torch.zeros(2, 50, dtype=torch.uint8), r"`packed` must be the one-dimensional.*\[2, 50\]"),
    "empty": (torch.zeros(0, dtype=torch.uint8), r"0 bytes.*truncated"),
    "zeros": (torch.zeros(200, dtype=torch.uint8), r"SSPW"),
}
BAD_SHAPES = {
    "three": [8, 4, 3],
    "zero": [8, 4, 0, 3],
    "negative": [8, -4, 3, 3],
    "huge": [2**40, 4, 3, 3],
    "overflow": [2**30, 2**30, 2**30, 2**30],
}
ERRORS = (RuntimeError, ValueError)


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments(ops, name):
    changed, message = BAD_CALLS[name]
    call = dict(input=X, bias=None, stride=1, padding=0, dilation=1, groups=1) | changed
    with pytest.raises(ERRORS, match=f"(?s){message}"):
        ops.conv2d(weight=W, **call)
    packed = ops.pack_weight(W)
    with pytest.raises(ERRORS, match=f"(?s){message}"):
        ops.conv2d.packed(packed=packed, weight_shape=list(W.shape), **call)


@pytest.mark.parametrize("name", [n for n in BAD_CALLS if n not in ("sparse input", "meta bias")])
def test_tracing_refuses_the_same_arguments(ops, name):
    """A graph that traces also runs: fake tensors get the same errors."""
    changed, message = BAD_CALLS[name]
    call = dict(input=X, bias=None, stride=1, padding=0, dilation=1, groups=1) | changed
    call = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    with pytest.raises(ERRORS, match=f"(?s){message}"):
        ops.conv2d(weight=W.to("meta"), **call)
    with pytest.raises(ERRORS, match=f"(?s){message}"):
        ops.conv2d.packed(packed=ops.pack_weight(W).to("meta"), weight_shape=list(W.shape), **call)


def test_arguments_of_another_dtype_than_a_float16_input(ops):
    x, w, shape = X.half(), W.half(), list(W.shape)
    with pytest.raises(ERRORS, match=r"`weight` must be float16, as `input` is, got Float; .*\.half"):
        ops.conv2d(x, W)
    for name, value in (("bias", torch.zeros(8)), ("fill", torch.zeros(8)), ("residual", torch.zeros(OUT))):
        message = rf"`{name}` must be float16, as `input` is, got Float; .*\.half"
        with pytest.raises(ERRORS, match=message):
            ops.conv2d(x, w, **{name: value})
        with pytest.raises(ERRORS, match=message):
            ops.conv2d.packed(x, ops.pack_weight(W), shape, **{name: value})


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights(ops, name):
    weight, message = BAD_WEIGHTS[name]
    with pytest.raises(ERRORS, match=message):
        ops.conv2d(X, weight)
    with pytest.raises(ERRORS, match=message):
        ops.pack_weight(weight)


@pytest.mark.parametrize("name", BAD_PACKED)
def test_bad_packed_tensors(ops, name):
    packed, message = BAD_PACKED[name]
    with pytest.raises(ERRORS, match=message):
        ops.conv2d.packed(X, packed, [8, 4, 3, 3])
    with pytest.raises(ERRORS, match=message):
        ops.unpack_weight(packed)


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_bad_weight_shapes(ops, name):
    packed = ops.pack_weight(W)
    with pytest.raises(ERRORS, match="weight"):
        ops.conv2d.packed(X, packed, BAD_SHAPES[name])
    with pytest.raises(ERRORS, match="weight"):
        ops.unpack_weight.shaped(packed, BAD_SHAPES[name])


@pytest.mark.parametrize("groups", [0, -1, 3, 2**40])
def test_bad_groups_when_packing(ops, groups):
    with pytest.raises(ERRORS, match=f"groups={groups}"):
        ops.pack_weight(W, groups)


def test_sizes_that_no_memory_holds(ops):
    """Strides of zero make tensors that are larger than any memory: an error, not an overflow."""
    huge = torch.zeros(1, 1, 1, 1).expand(2**20, 1, 2**20, 2**20)
    for weight in (torch.ones(4, 1, 1, 1), W[:, :1]):
        with pytest.raises((*ERRORS, MemoryError)):
            ops.conv2d(huge, weight)


def test_messages_show_no_path_of_the_machine_that_built_the_library(ops):
    with pytest.raises(RuntimeError) as error:
        ops.conv2d(X.double(), W)
    text = str(error.value)
    assert "/" not in text.replace("IC/groups", "").replace("torch/cpp", ""), text


def test_library_holds_no_absolute_source_path():
    from semisparse._library import LIBRARY

    source = str(LIBRARY.parents[1]).encode()
    assert source + b"/cpp" not in LIBRARY.read_bytes()
