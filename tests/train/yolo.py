"""A small YOLO and a small data set for the tests of detection. Importing this needs no ultralytics."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

# Before ultralytics is imported: settings of its own, no look at the network, nothing installed.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="semisparse-yolo-")
os.environ["YOLO_OFFLINE"] = "True"
os.environ["YOLO_AUTOINSTALL"] = "False"

SIZE, EPOCHS = 96, 7
NETWORK = """
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, C2f, [64, True]]
  - [-1, 1, SPPF, [64, 5]]
head:
  - [[5], 1, Detect, [nc]]
"""
PLAIN = ["mosaic=0", "close_mosaic=0", "hsv_h=0", "hsv_s=0", "hsv_v=0", "warmup_epochs=1"]


def require() -> None:
    """Skip the test, or the module, where ultralytics is not installed. It is not imported yet."""
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("needs ultralytics: pip install 'semisparse[detect]'", allow_module_level=True)


def network(directory: Path) -> Path:
    path = directory / "tiny.yaml"
    path.write_text(NETWORK)
    return path


def recipe(directory: Path, text: str = "_default: {columns: {ratio: 0.3, begin: 0.0, end: 0.4}}") -> Path:
    path = directory / "recipe.yaml"
    path.write_text(text)
    return path


def options(directory: Path, epochs: int) -> list[str]:
    """Of a sparse training in `directory`/run that learns something in a few epochs."""
    return [
        *("--model", str(network(directory)), "--recipe", str(recipe(directory))),
        *(
            "--size",
            str(SIZE),
            "--epochs",
            str(epochs),
            "--batch-size",
            "8",
            "--opt",
            "AdamW",
            "--lr",
            "0.005",
        ),
        *("--data-dir", str(directory / "data"), "--output-dir", str(directory / "run"), "--quiet"),
        *("--yolo", "nbs=8", "val=False", *PLAIN),
    ]


def start_and_kill(arguments: list[str], run: Path, epochs: int, timeout: float = 300) -> None:
    """Start `semisparse train detect` in a process of its own; SIGKILL when `epochs` are in its log."""
    command = [sys.executable, "-m", "semisparse.train.detect", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log, deadline = run / "results.csv", time.monotonic() + timeout
    try:
        while time.monotonic() < deadline and process.poll() is None:
            # The checkpoint of an epoch is written after its line.
            if log.is_file() and len(log.read_text().splitlines()) > epochs + 1:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.kill()
        output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
