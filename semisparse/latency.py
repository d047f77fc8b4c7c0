"""Latency of several callables, measured so that they can be compared.

Machines drift: clocks, caches and neighbours change within seconds. So candidates are *interleaved*
(A B C, B C A, ...), never timed one after the other; speed-ups are medians of per-round ratios; and every
figure comes with its spread. All numbers this project prints are taken here.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from semisparse.stepwise import fixed_threads

# A burst shorter than this is dominated by the clock and by what the previous candidate left in the caches.
BURST_SECONDS = 4e-3
# OpenMP and engine thread pools spin for a while after work; with several threads a pause lets them sleep,
# so that one candidate's idle threads do not steal the next one's cores.
SETTLE_SECONDS = 10e-3


@dataclass(frozen=True)
class Latency:
    """Time per call of one candidate, in milliseconds, over all timed calls."""

    median: float
    p10: float
    p90: float
    mad: float  # median absolute deviation
    calls: int

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        ms = sorted(1e3 * s for s in seconds)
        median = statistics.median(ms)
        return cls(
            median=median,
            p10=_quantile(ms, 0.1),
            p90=_quantile(ms, 0.9),
            mad=statistics.median(abs(t - median) for t in ms),
            calls=len(ms),
        )

    def __str__(self) -> str:
        return f"{self.median:.3f} ms ({self.p10:.3f}-{self.p90:.3f})"


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`: per-candidate latencies and paired speed-ups.

    Attributes:
        latency: over all timed calls, by candidate.
        rounds: the median milliseconds of each round, by candidate; entries i were measured together.
        threads: with how many threads.
    """

    latency: dict[str, Latency]
    rounds: dict[str, list[float]]
    threads: int

    def speedup(self, candidate: str, baseline: str) -> float:
        """How many times faster `candidate` is than `baseline`: the median of the per-round ratios."""
        return statistics.median(
            b / c for b, c in zip(self.rounds[baseline], self.rounds[candidate], strict=True)
        )

    def as_dict(self) -> dict:
        """For JSON."""
        return {"threads": self.threads, "latency_ms": {k: vars(v) for k, v in self.latency.items()}}


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    threads: int = 1,
    seconds: float | None = None,
) -> Comparison:
    """Time callables against each other, interleaved, under `torch.inference_mode`.

    Each round visits every candidate once, starting from a different one each time. A visit makes one
    untimed call (which refills the caches) and then times single calls for about 4 ms, at least one.

    Args:
        candidates: name -> callable without arguments. Give real data: zeros and constants make some
            engines faster than they are.
        rounds: visits per candidate.
        warmup: untimed calls per candidate before the first round (compilation, packing, allocation).
        threads: `torch.set_num_threads` during the measurement; other engines must be created with the
            same number by the caller.
        seconds: a limit for the whole measurement: fewer rounds (at least 3) where it would be passed.

    Raises:
        ValueError: no candidate, or a count below 1.
    """
    if not candidates:
        raise ValueError("nothing to compare: give at least one candidate")
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds must be at least 1 and warmup at least 0, got {rounds} and {warmup}")
    names = list(candidates)
    with fixed_threads(threads), torch.inference_mode(), no_garbage_collection():
        repeats = {}
        for name in names:
            for _ in range(warmup):
                candidates[name]()
            repeats[name] = max(1, math.ceil(BURST_SECONDS / min(timed(candidates[name], 2))))
        samples: dict[str, list[float]] = {name: [] for name in names}
        medians: dict[str, list[float]] = {name: [] for name in names}
        started = time.perf_counter()
        for round_ in range(rounds):
            if seconds is not None and round_ >= 3 and time.perf_counter() - started > seconds:
                break
            shift = round_ % len(names)
            for name in names[shift:] + names[:shift]:
                if threads > 1:
                    time.sleep(SETTLE_SECONDS)
                candidates[name]()
                burst = timed(candidates[name], repeats[name])
                samples[name] += burst
                medians[name].append(1e3 * statistics.median(burst))
    return Comparison({name: Latency.of(samples[name]) for name in names}, medians, threads)


def random_input(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normally distributed float32 input, the same for every engine."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls."""
    clock = time.perf_counter
    result = []
    for _ in range(repeats):
        start = clock()
        call()
        result.append(clock() - start)
    return result


def _quantile(ordered: list[float], q: float) -> float:
    """Linear interpolation between order statistics (numpy's default), also for a single value."""
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector from running inside a timed call."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
