"""Depthwise layers of MobileNetV2 (3x3) and EfficientNet-B0 (5x5), against torch and ONNX Runtime."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semisparse.converted import pack_weight
from semisparse.eval.peers.engines import onnxruntime
from semisparse.latency import compare, fixed_threads, random_input

# channels, side, kernel, stride
LAYERS = (
    (32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 3, 1), (192, 28, 3, 1), (384, 14, 3, 1), (576, 14, 3, 2),
    (960, 7, 3, 1), (240, 28, 5, 1), (144, 56, 5, 2),
)  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids="{0[0]}x{0[1]}_k{0[2]}_s{0[3]}".format)
@pytest.mark.parametrize("threads", [1, 2], ids="{}threads".format)
def test_depthwise(benchmark, record, tmp_path, layer, threads: int):
    for package in onnxruntime.PACKAGES:
        pytest.importorskip(package)
    channels, side, kernel, stride = layer
    network = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels).eval()
    x = random_input(1, channels, side, side)
    weight, bias = network.weight.detach(), network.bias.detach()
    packed, shape, steps, padding = (
        pack_weight(weight, channels),
        list(weight.shape),
        [stride] * 2,
        [kernel // 2] * 2,
    )
    last = x.contiguous(memory_format=torch.channels_last)
    run = torch.ops.semisparse.conv2d.packed
    calls = {
        "torch": lambda: F.conv2d(last, weight, bias, stride, kernel // 2, groups=channels),
        "onnxruntime": onnxruntime.build(network, x, threads, str(tmp_path)),
        "semisparse": lambda: run(x, packed, shape, bias, steps, padding, [1, 1], channels),
    }
    record(compare(calls, threads=threads, rounds=20), "semisparse")
    benchmark.group = f"depthwise {channels}@{side}, {kernel}x{kernel}, stride {stride}, {threads} thread(s)"
    with fixed_threads(threads), torch.inference_mode():
        benchmark(calls["semisparse"])
