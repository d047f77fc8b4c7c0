"""tools/demo.sh: the commands that it runs exist and fit together. The demo itself takes minutes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semisparse.recipe import Recipe

DEMO = Path(__file__).parents[1] / "tools" / "demo.sh"
RECORDER = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def demo(tmp_path):
    tools, binaries = tmp_path / "tools", tmp_path / ".venv" / "bin"
    for folder in (tools, binaries):
        folder.mkdir(parents=True)
    shutil.copy(DEMO, tools)
    (tools / "setup.sh").write_text('#!/bin/sh\n[ "$1" = train,eval,peers ]\n')
    (binaries / "semisparse").write_text(RECORDER)
    for file in (tools / "setup.sh", binaries / "semisparse"):
        file.chmod(0o755)

    def run(*arguments, **environment):
        record = tmp_path / "record"
        environment = {"PATH": os.environ["PATH"], "RECORD": str(record), **environment}
        subprocess.run([str(tools / "demo.sh"), *arguments], env=environment, check=True, capture_output=True)
        return [json.loads(line) for line in record.read_text().splitlines()]

    return run


def test_every_command_can_be_parsed_and_starts_from_what_another_one_wrote(demo):
    pytest.importorskip("semisparse._torchvision")
    from semisparse.eval.classify import parser
    from semisparse.train.arguments import parse
    from semisparse.train.models import make_classifier

    *training, evaluation = demo()
    assert all(command[:2] == ["train", "classify"] for command in training)
    dense, *sparse = (parse(command[2:]) for command in training)
    assert dense.recipe is None and len(sparse) == 2
    network = make_classifier(dense.model, 10)
    for args in sparse:
        assert args.checkpoint == f"{dense.output_dir}/checkpoint.pt" and args.data == dense.data == "digits"
        layers = Recipe.load(args.recipe).override(*args.set).resolve(network)
        assert len(layers) == 16 and all(layer.sparse_weights for layer in layers.values())
        assert {layer.columns.ratio for layer in layers.values()} == {0.3}
        assert {layer.columns.granularity for layer in layers.values()} == {"auto"}
    assert evaluation[:2] == ["eval", "classify"]
    compared = parser().parse_args(evaluation[2:])
    assert compared.dense == dense.output_dir and compared.run == [args.output_dir for args in sparse]
    assert {Path(args.output_dir).parent for args in (dense, *sparse)} == {Path(compared.output_dir)}


def test_arguments_go_to_every_training(demo):
    *training, evaluation = demo("--data", "imagenette", "--epochs", "2", OUT="elsewhere")
    for command in training:
        assert "--data imagenette --epochs 2" in " ".join(command) and "digits" not in command
        assert command[command.index("--output-dir") + 1].startswith("elsewhere/")
    assert "imagenette" not in evaluation and evaluation[-1] == "elsewhere"
