"""`compare` measures what it says; only orders that a busy machine cannot turn round are asserted."""

import time

import pytest
import torch

from semisparse.latency import Comparison, Latency, compare, fixed_threads, random_input


def test_latency_summary_is_in_milliseconds():
    latency = Latency.of([0.001, 0.002, 0.003, 0.004, 0.1])
    assert latency.median == pytest.approx(3)
    assert latency.mad == pytest.approx(1)
    assert latency.p10 == pytest.approx(1.4)
    assert latency.p90 == pytest.approx(61.6)
    assert latency.calls == 5
    assert Latency.of([0.5]).p90 == pytest.approx(500)


def test_speedup_is_paired_by_round():
    # The machine becomes ten times slower half-way: unpaired medians would mix both halves.
    rounds = {"a": [1.0, 1.0, 10.0, 10.0, 10.0], "b": [2.0, 2.0, 20.0, 20.0, 20.0]}
    comparison = Comparison({}, rounds, threads=1)
    assert comparison.speedup("a", "b") == pytest.approx(2.0)
    assert comparison.speedup("b", "a") == pytest.approx(0.5)


def test_candidates_are_interleaved_and_start_in_turn():
    calls = []

    def candidate(name):
        def call():
            calls.append(name)
            time.sleep(0.005)  # longer than a burst: one timed call per visit

        return call

    result = compare({"a": candidate("a"), "b": candidate("b")}, rounds=4, warmup=0)
    timed = calls[4:]  # two calls each to size the bursts
    # A visit is one untimed and one timed call.
    assert timed == list("aabbbbaaaabbbbaa")
    assert result.latency["a"].calls == 4
    assert [len(r) for r in result.rounds.values()] == [4, 4]
    assert result.latency["a"].median >= 5


def test_short_calls_are_repeated():
    result = compare({"short": lambda: None}, rounds=2)
    assert result.latency["short"].calls > 20


def test_calls_run_in_inference_mode_with_the_asked_threads():
    seen = []
    before = torch.get_num_threads()
    wanted = 1 if before > 1 else 2

    def call():
        seen.append((torch.is_inference_mode_enabled(), torch.get_num_threads()))
        time.sleep(0.005)

    compare({"x": call}, rounds=1, threads=wanted)
    assert set(seen) == {(True, wanted)}
    assert torch.get_num_threads() == before


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"), fixed_threads(before + 1):
        raise RuntimeError("broken")
    assert torch.get_num_threads() == before


def test_time_limit_keeps_at_least_three_rounds():
    result = compare({"x": lambda: time.sleep(0.005)}, rounds=1000, seconds=0.0)
    assert len(result.rounds["x"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"candidates": {}}, "nothing to compare"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"warmup": -1}, "warmup at least 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(**({"candidates": {"x": lambda: None}} | arguments))


def test_random_input_is_repeatable_and_not_constant():
    a, b, c = random_input(2, 3, 4, 4), random_input(2, 3, 4, 4), random_input(2, 3, 4, 4, seed=1)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.std() > 0.5
