"""Races: engines in processes of their own compute the model, and those that cannot are named with the
reason."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

import semisparse as ss
from semisparse.eval.peers import ENGINES, Candidate, race
from semisparse.eval.peers import main as command
from semisparse.eval.peers.candidates import difference, first_array
from semisparse.eval.peers.cores import choose_cores
from semisparse.eval.peers.engines import engine
from semisparse.eval.peers.main import report
from semisparse.eval.peers.race import _Worker
from semisparse.latency import random_input

# What has to be importable for an engine to run; the brief ones run in the default suite.
MODULES = {
    "torch": (),
    "torch.compile": (),
    "semisparse": (),
    "semisparse.runtime": (),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "ncnn": ("ncnn", "pnnx"),
    "mnn": ("onnx", "MNN"),
    "litert": ("litert_torch", "ai_edge_litert"),
    "executorch": ("executorch",),
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


@pytest.fixture(scope="module")
def result(model):
    """One race for most tests: processes cost seconds."""
    candidates = [
        Candidate("torch", "torch", model),
        Candidate("ours", "semisparse", ss.convert(model, torch.zeros(1, 3, 12, 12))),
        Candidate("without torch", "semisparse.runtime", model),
        Candidate("mobile", "ncnn", model),
    ]
    lines = []
    # Batch 2: ncnn takes one image at a time. Only the shape counts: other values would differ.
    return race(candidates, torch.ones(2, 3, 12, 12), rounds=3, progress=lines.append), lines


def test_interleaved_latencies_of_those_that_run(result):
    found, lines = result
    assert list(found.comparison.latency) == ["torch", "ours", "without torch"]
    assert found.engines == {
        "torch": "torch",
        "ours": "semisparse",
        "without torch": "semisparse.runtime",
    }
    for label, latency in found.comparison.latency.items():
        assert len(found.comparison.rounds[label]) == 3
        assert latency.calls >= 9 and 0 < latency.p10 <= latency.median <= latency.p90
        assert found.differences[label] < 1e-5
    assert found.fastest() in ("torch", "ours", "without torch")
    assert found.fastest(among=["torch"]) == "torch"
    assert found.fastest(among=["mnn"]) is None
    assert lines[-1] == "round 3 of 3"
    json.dumps(found.as_dict())


def test_who_does_not_run_is_reported_with_the_reason(result):
    found, _ = result
    assert list(found.missing) == ["mobile"]
    assert (
        "not installed (pip install ncnn pnnx)" in found.missing["mobile"]
        or "batch is 2" in found.missing["mobile"]
    )
    table = report(found)
    assert f"fastest: {found.fastest()}" in table
    assert f"not timed: mobile: {found.missing['mobile']}" in table


def test_installed_engines_compute_the_model(model):
    installed = [
        name
        for name, modules in MODULES.items()
        if name in ("onnxruntime", "openvino") and _importable(modules)
    ]
    if not installed:
        pytest.skip("no other engine is installed")
    found = race([Candidate(name, name, model) for name in installed], random_input(1, 3, 12, 12), rounds=1)
    assert found.missing == {}
    assert all(value < 1e-5 for value in found.differences.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENGINES if name in MODULES])
def test_every_engine_computes_the_model(name, model):
    if not _importable(MODULES[name]):
        pytest.skip(f"{name} is not installed")
    found = race([Candidate(name, name, model)], random_input(1, 3, 12, 12), rounds=1)
    assert found.missing == {}
    assert found.differences[name] < 1e-3  # MNN's Winograd


def test_a_process_that_dies_is_reported(model, tmp_path, monkeypatch):
    run = _Worker.run

    def killed(self, calls):
        os.kill(self.process.pid, signal.SIGKILL)
        return run(self, calls)

    monkeypatch.setattr(_Worker, "run", killed)
    found = race([Candidate("torch", "torch", model)], random_input(1, 3, 12, 12), rounds=1)
    assert found.comparison.latency == {}
    assert "ended by signal SIGKILL" in found.missing["torch"]


def test_an_engine_that_computes_something_else_is_reported():
    class Random(nn.Module):
        def forward(self, x):
            return torch.rand_like(x)

    found = race([Candidate("dice", "torch", Random())], random_input(1, 3, 12, 12), rounds=1)
    assert found.comparison.latency == {}
    assert found.missing["dice"].startswith("computes something else: differs by")


def test_command_writes_json(model, tmp_path, capsys):
    torch.export.save(torch.export.export(model, (random_input(1, 3, 12, 12),)), tmp_path / "net.pt2")
    argv = ["--model", tmp_path / "net.pt2", "--size", "12", "--engines", "semisparse", "--rounds", "1"]
    command.main([*map(str, argv), "--json", str(tmp_path / "peers.json")])
    assert "fastest: semisparse" in capsys.readouterr().out
    written = json.loads((tmp_path / "peers.json").read_text())
    (found,) = written["races"]
    assert found["threads"] == 1 and found["engines"] == {"semisparse": "semisparse"}
    assert written["machine"]["semisparse"] == ss.__version__


def test_model_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file nowhere.pt2"):
        command.main(["--model", "nowhere.pt2"])
    (tmp_path / "bad.pt2").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="bad.pt2 is not a program that torch.export.save wrote"):
        command.main(["--model", str(tmp_path / "bad.pt2")])


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([], {}, "different labels"),
        (["a", "a"], {}, "different labels"),
        (["a"], {"rounds": 0}, "rounds and threads must be at least 1, got 0 and 1"),
        (["a"], {"threads": 0}, "got 20 and 0"),
    ],
)
def test_bad_arguments_are_refused(model, labels, settings, message):
    candidates = [Candidate(label, "torch", model) for label in labels]
    with pytest.raises(ValueError, match=message):
        race(candidates, random_input(1, 3, 8, 8), **settings)


def test_unknown_engine_is_refused(model):
    with pytest.raises(ValueError, match="unknown engine 'tvm': choose among semisparse, semisparse.runtime"):
        race([Candidate("x", "tvm", model)], random_input(1, 3, 8, 8))


def test_every_engine_says_what_it_needs():
    for name in ENGINES:
        assert engine(name).PACKAGES, name


def test_first_array_of_what_engines_return():
    array = np.ones((2, 3), np.float32)
    for output in (array, torch.ones(2, 3), [array], (torch.ones(2, 3), None), {"a": array}):
        np.testing.assert_array_equal(first_array(output), array)
    assert difference(np.ones((1, 4)), np.ones(4, np.float32)) == 0
    assert difference(np.array([1.0, 2.5]), np.array([1.0, 2.0])) == pytest.approx(0.25)
    with pytest.raises(RuntimeError, match=r"shape \(3,\), expected \(4,\)"):
        difference(np.ones(3), np.ones(4))


def test_cores_are_physical_ones(tmp_path, monkeypatch):
    # CPUs 0 and 1 are one core, 2 and 3 another.
    for cpu, siblings in enumerate(("0-1", "0-1", "2-3", "2-3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert choose_cores(1, str(tmp_path)) == [2]
    assert choose_cores(2, str(tmp_path)) == [0, 2]
    assert choose_cores(3, str(tmp_path)) == [1, 2, 3]
    assert choose_cores(5, str(tmp_path)) == []


def _importable(modules) -> bool:
    from importlib.util import find_spec

    return all(find_spec(module) for module in modules)
