"""The console command: help without heavy imports, one-line errors, exit codes."""

import importlib.metadata
import subprocess
import sys

import pytest

pytest.importorskip("typer")

from semisparse import cli, runtime  # noqa: E402


def run(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(argv))
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


def test_help_lists_the_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("info", "explain", "bench", "tune", "plan", "convert", "train", "eval"):
        assert command in out


def test_help_imports_neither_torch_nor_torchvision():
    script = (
        "import sys\nfrom semisparse import cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('torchvision', 'matplotlib', 'semisparse.train', 'semisparse.eval')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_info_reports_versions_and_kernels_without_paths(capsys):
    import torch

    code, out, _ = run(capsys, "info")
    assert code == 0
    fields = dict(line.split(maxsplit=1) for line in out.splitlines() if line[:1].strip())
    assert fields["semisparse"] == importlib.metadata.version("semisparse")
    assert torch.__version__ in out
    assert fields["kernels"] == runtime.kernel_name()
    assert fields["compiler"] == runtime.compiler()
    assert any(character.isdigit() for character in runtime.compiler())
    assert runtime.cpu_info()["architecture"] in out
    assert "/home" not in out and "site-packages" not in out


def test_info_of_a_model_lists_its_layers(capsys, tmp_path):
    import torch

    import semisparse as ss

    model = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.ConvTranspose2d(4, 2, 2))
    with torch.no_grad():
        for layer in model:
            layer.weight[0] = 0
    ss.save(ss.convert(model, torch.randn(2, 2, 6, 6)), tmp_path / "model.safetensors")
    code, out, _ = run(capsys, "info", str(tmp_path / "model.safetensors"))
    lines = out.splitlines()
    assert code == 0 and lines[0].endswith("not used")
    assert lines[2].startswith("0 ") and "structured" in lines[2] and lines[2].endswith("K")
    assert "conv_transpose2d is not a convolution that" in lines[3]
    code, _, err = run(capsys, "info", str(tmp_path / "none"))
    assert code == 2 and "none" in err


@pytest.mark.parametrize(
    "error", [ValueError("ratio 2 is not in [0, 1)"), RuntimeError("wrong"), OSError("no file")]
)
def test_user_mistakes_end_in_one_line_and_exit_code_2(capsys, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr("semisparse.info.collect", fail)
    code, out, err = run(capsys, "info")
    assert (code, out, err) == (2, "", f"error: {error}\n")


def test_debug_shows_the_traceback(monkeypatch):
    def fail():
        raise ValueError("inside")

    monkeypatch.setattr("semisparse.info.collect", fail)
    for argv in (["--debug", "info"], ["info", "--debug"]):
        with pytest.raises(ValueError, match="inside"):
            cli.main(argv)


def test_unknown_command_is_refused(capsys):
    code, _, err = run(capsys, "frobnicate")
    assert code == 2
    assert "frobnicate" in err


def test_missing_module_names_the_extra(capsys, monkeypatch):
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda _: ["numpy>=1", 'PyYAML>=6; extra == "train"', 'torch; extra == "x"'],
    )

    def fail():
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    monkeypatch.setattr("semisparse.info.collect", fail)
    code, _, err = run(capsys, "info")
    assert code == 2
    assert err == "error: yaml is not installed: pip install 'semisparse[train]'\n"


def test_every_optional_module_has_an_extra_in_the_package_metadata():
    for module in ("torchvision", "sklearn", "yaml", "matplotlib", "rich", "typer", "onnxruntime", "onnx"):
        message = cli._missing(ModuleNotFoundError("x", name=module))
        assert "semisparse[" in message, message


@pytest.mark.parametrize("command", ["train", "eval"])
def test_options_are_passed_through(command, monkeypatch):
    seen = []
    module = pytest.importorskip(f"semisparse.{command}.classify")
    monkeypatch.setattr(module, "main", seen.append)
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "classify", "--data", "digits", "--epochs", "2", "--help"])
    assert not exit_.value.code
    assert seen == [["--data", "digits", "--epochs", "2", "--help"]]
