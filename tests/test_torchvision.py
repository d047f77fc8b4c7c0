"""torchvision beside a CPU-only torch: import, and the kernel that stands in for its C++ nms."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("semisparse._torchvision")

from semisparse._torchvision import nms_kernel, torchvision  # noqa: E402


def reference_nms(boxes, scores, threshold):
    """One pair at a time, in Python numbers of double precision."""
    boxes, scores = boxes.double().tolist(), scores.tolist()

    def iou(a, b):
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
        return width * height / union if union else 0.0

    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.floats(0.05, 0.95), st.integers(0, 2**31))
def test_nms_agrees_with_the_definition(count, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 10
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 5], 1)
    scores = torch.randperm(count, generator=generator).float()
    assert nms_kernel(boxes, scores, threshold).tolist() == reference_nms(boxes, scores, threshold)


def test_torchvisions_own_functions_work():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.9, 0.1])
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert torchvision.ops.batched_nms(boxes, scores, torch.tensor([0, 1, 0]), 0.5).tolist() == [1, 0, 2]
    assert torchvision.ops.nms(boxes[:0], scores[:0], 0.5).shape == (0,)


def test_equal_scores_and_degenerate_boxes():
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]])
    assert nms_kernel(boxes, torch.ones(4), 0.5).tolist() == [0, 2, 3]


def test_bad_shapes_are_refused():
    with pytest.raises(RuntimeError, match=r"\(N, 4\)"):
        nms_kernel(torch.zeros(3, 5), torch.zeros(3), 0.5)
    with pytest.raises(RuntimeError, match=r"scores must have shape \(3,\)"):
        nms_kernel(torch.zeros(3, 4), torch.zeros(2), 0.5)


@pytest.mark.parametrize(
    "before", ["import semisparse\n", "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"]
)
def test_import_in_a_fresh_process(before):
    code = before + (
        "from semisparse._torchvision import torchvision\n"
        "import importlib, semisparse._torchvision as module\n"
        "importlib.reload(module)\n"
        "import torch\n"
        "print(torchvision.ops.nms(torch.tensor([[0., 0, 1, 1]] * 2), torch.ones(2), 0.5).tolist())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[0]", result.stderr
