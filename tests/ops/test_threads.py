"""Threads: torch's setting is followed, results do not depend on it, and several callers do not disturb each
other."""

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import cases, examples
from hypothesis import given, settings


@settings(max_examples=examples(60))
@given(case=cases(max_size=40, max_channels=24))
@pytest.mark.arm
def test_results_are_bitwise_equal_for_any_number_of_threads(ops, threads, case):
    packed = ops.pack_weight(case.args[1], case.groups)
    rest = (packed, list(case.args[1].shape), *case.args[2:])
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(ops.conv2d.packed(case.args[0], *rest, **case.kwargs))
        results.append(ops.conv2d(*case.args, **case.kwargs))
    assert all(torch.equal(results[0].view(torch.int32), r.view(torch.int32)) for r in results[2::2])
    assert all(torch.equal(results[1].view(torch.int32), r.view(torch.int32)) for r in results[3::2])


def test_work_is_done_by_as_many_threads_as_torch_is_set_to(ops, threads):
    """at::parallel_for is silently serial if the library was compiled without OpenMP: the CPU time of torch's
    second thread must grow."""
    if not os.path.exists("/proc/self/task"):
        pytest.skip("needs Linux's /proc")

    def cpu_time():
        ticks = {}
        for task in os.listdir("/proc/self/task"):
            # A thread that an earlier test left behind may end between the two.
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/self/task/{task}/schedstat") as file,
            ):
                ticks[task] = int(file.read().split()[0])
        return ticks

    threads(2)
    x, packed = torch.randn(4, 64, 56, 56), ops.pack_weight(torch.randn(64, 64, 3, 3))
    ops.conv2d.packed(x, packed, [64, 64, 3, 3], padding=1)
    before = cpu_time()
    for _ in range(10):
        ops.conv2d.packed(x, packed, [64, 64, 3, 3], padding=1)
    spent = sorted((now - before.get(task, 0) for task, now in cpu_time().items()), reverse=True)
    assert len(spent) >= 2 and spent[1] > 0, f"CPU time by thread: {spent[:4]} ns"


@pytest.mark.arm
def test_concurrent_calls_from_python_threads(ops):
    """Different weights, one shared weight, and first uses of the same packed tensor, all at the same
    time."""
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(16, 8, 3, 3, generator=g) for _ in range(6)]
    x = torch.randn(2, 8, 20, 20, generator=g)
    expected = [ops.conv2d(x, w, None, 1, 1) for w in weights]
    for _ in range(10):
        packed = [ops.pack_weight(w) for w in weights]
        start = threading.Barrier(6)

        def work(index, packed=packed, start=start):
            start.wait()
            for step in range(12):
                which = (index * (step % 2) + step // 3) % 6
                y = ops.conv2d.packed(x, packed[which], [16, 8, 3, 3], None, 1, 1)
                torch.testing.assert_close(y, expected[which], rtol=1e-4, atol=1e-4)
            return True

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(work, range(6)))
