"""Latency suites for pytest-benchmark: `pytest tests/bench` on a quiet machine.

pytest-benchmark times our operator. Comparisons are interleaved by `semisparse.latency.compare` in
the same test and stored, like machine and versions, in `extra_info` (see `--benchmark-json`).
"""

import pytest

from semisparse.info import collect
from semisparse.latency import Comparison


@pytest.fixture(scope="session")
def machine():
    return collect()


@pytest.fixture
def record(benchmark, machine):
    """Store a comparison: medians in ms of all candidates and speed-ups of `ours` over the others."""

    def store(comparison: Comparison, ours: str) -> None:
        benchmark.extra_info["machine"] = machine
        benchmark.extra_info |= comparison.as_dict()
        benchmark.extra_info["speedup_over"] = {
            name: comparison.speedup(ours, name) for name in comparison.latency if name != ours
        }

    return store
