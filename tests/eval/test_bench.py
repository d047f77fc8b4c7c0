"""`semisparse bench`, `explain` and `tune` on files, through the console command."""

import json
import shutil

import pytest
import torch
from torch import nn

pytest.importorskip("typer")

import semisparse as ss  # noqa: E402
from semisparse import cli  # noqa: E402
from semisparse.eval import bench  # noqa: E402
from semisparse.tuning_file import tuning_path  # noqa: E402


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)).eval()
    with torch.no_grad():
        model[2].weight[:, 4:] = 0
    path = tmp_path_factory.mktemp("bench") / "half.safetensors"
    ss.save(ss.convert(model, torch.randn(1, 3, 20, 20), free_size=False), path)
    return path


def run(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        cli.main([*map(str, argv)])
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


def test_bench_compares_files_with_their_dense_network_and_engines(file, tmp_path, capsys):
    target = tmp_path / "bench.json"
    code, out, _ = run(
        capsys, "bench", file, "--peers", "torch", "--rounds", 2, "--batch", 2, "--runtime", "--json", target
    )
    assert code == 0
    assert "input 2x3x20x20, float32, 1 thread(s):" in out and "fastest dense engine: torch" in out
    (found,) = json.loads(target.read_text())["benchmarks"]
    assert list(found["latency_ms"]) == ["torch", "dense", "half", "dense, runtime", "half, runtime"]
    assert found["threads"] == 1 and found["input"] == [2, 3, 20, 20]
    assert all(error < 1e-4 for error in found["differences"].values())


def test_bench_runs_files_as_they_are_tuned(file, capsys):
    tuning_path(file).write_text("no tuning")
    code, _, err = run(capsys, "bench", file, "--rounds", 1)
    assert code == 2 and "half.tuning.json is not a tuning" in err
    tuning_path(file).unlink()
    code, _, _ = run(capsys, "tune", file, "--rounds", 1)
    wanted = json.loads(tuning_path(file).read_text())
    for layer in wanted["tunings"][0]["layers"]:
        layer["algorithm"] = "winograd2"
    tuning_path(file).write_text(json.dumps(wanted))
    from semisparse.eval.peers.candidates import TUNING, write

    folder = file.parent / "worker"
    folder.mkdir()
    write(ss.load(file), torch.randn(1, 3, 20, 20), folder)
    shutil.copy(tuning_path(file), folder / TUNING)
    ran = ss.explain(ss.load(folder / "model.safetensors"), torch.randn(1, 3, 20, 20), rounds=1)
    assert {layer.algorithm for layer in ran.layers} == {"winograd2"}
    for layer in wanted["tunings"][0]["layers"]:
        layer["algorithm"] = layer["default"]
    tuning_path(file).write_text(json.dumps(wanted))
    ss.load(file)
    tuning_path(file).unlink()


def test_bench_refuses_files_that_take_other_images(file, tmp_path):
    other = tmp_path / "other.safetensors"
    ss.save(ss.convert(nn.Conv2d(1, 2, 3), torch.randn(1, 1, 20, 20), free_size=False), other)
    with pytest.raises(
        ValueError, match=r"takes images of \(1, 20, 20\), the models before it of \(3, 20, 20\)"
    ):
        bench.main([str(file), str(other)])
    with pytest.raises(ValueError, match="--size is 24"):
        bench.main([str(file), "--size", "24"])
    with pytest.raises(ValueError, match="--batch is 0"):
        bench.main([str(file), "--batch", "0"])


def test_explain_prints_a_table_and_writes_json(file, tmp_path, capsys):
    target = tmp_path / "explain.json"
    code, out, _ = run(capsys, "explain", file, "--rounds", 1, "--json", target)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["layer", "weight", "output"]
    assert any("8x8x3x3" in line and "50%" in line for line in lines)
    assert "1 thread(s)" in lines[-1]
    assert [layer["name"] for layer in json.loads(target.read_text())["layers"]] == ["0", "2"]


def test_tune_writes_beside_the_file_once(file, capsys):
    code, out, _ = run(capsys, "tune", file, "--rounds", 1)
    assert code == 0 and f"wrote {tuning_path(file)}" in out and "layers changed" in out
    content = tuning_path(file).read_bytes()
    code, out, _ = run(capsys, "tune", file, "--rounds", 1)
    assert code == 0 and f"already in {tuning_path(file)}" in out
    assert tuning_path(file).read_bytes() == content
    tuning_path(file).unlink()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 3, padding=1))


def test_explain_of_a_model_with_pretended_sparsity(tmp_path, capsys, monkeypatch):
    code = "from torch import nn\nnet = lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 32, 3))\n"
    (tmp_path / "my_models.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    argv = ["explain", "my_models:net", "--size", 20, "--rounds", 1]
    code, out, err = run(capsys, *argv, "--imposed", "pattern+connectivity=0.5+group=4,columns=0.25")
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if "32x8x3x3" in line]
    assert "columns 25%" in line and "17%" in line
    code, _, err = run(capsys, "explain", "my_models:missing")
    assert code == 2 and "there is no my_models:missing" in err


def test_sparsity_that_nothing_is_for_is_refused(tmp_path, capsys):
    torch.export.save(
        torch.export.export(network().eval(), (torch.randn(1, 3, 16, 16),)), tmp_path / "net.pt2"
    )
    argv = ["explain", tmp_path / "net.pt2", "--size", 16, "--imposed", "pattern"]
    code, _, err = run(capsys, *argv)
    assert code == 2 and "pattern removes nothing here" in err and "MODULE:FUNCTION" in err


def test_converted_models_take_no_pretended_sparsity(file, capsys):
    code, _, err = run(capsys, "explain", file, "--imposed", "columns=0.3")
    assert code == 2 and "is converted: 'columns=0.3' can only be imposed before that" in err


@pytest.mark.parametrize("command", ["bench", "plan"])
def test_pass_through_commands_have_help(command, capsys):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and "--rounds" in out and f"semisparse {command}" in out
