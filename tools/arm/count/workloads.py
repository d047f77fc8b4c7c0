"""What is counted: layers and networks, as files for every engine, made on this machine."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import semisparse as ss
from semisparse.eval import imposed
from semisparse.eval.layers import Case, Layer
from semisparse.eval.models import load_model
from semisparse.eval.peers import onnx
from semisparse.eval.peers.candidates import first_array
from semisparse.eval.peers.engines import mnn, ncnn
from semisparse.latency import random_input

FORCED = ("im2col", "direct")  # also counted for dense layers: what the others do that have no Winograd


@dataclass(frozen=True)
class Run:
    """One row of the report: an engine that runs a file.

    Attributes:
        label: of our own, the imposed sparsity; of the others, how they run.
        file: beside it lie `x.npy` and `<file>.npy`, the expected output.
        option: for the driver.
    """

    engine: str
    label: str
    file: Path
    option: str = ""


class Workload:
    """A model, an input, and the sparsities to impose on it.

    Args:
        name: `CHANNELS@SIDE`, a 3x3 layer, or `MODEL@SIDE`, what `semisparse.eval.models.load_model` takes.
        settings: as `semisparse plan --imposed` takes them.
        half: run in half precision.
    """

    def __init__(self, name: str, settings: Sequence[str], half: bool = False):
        self.name = name
        self.option = "float16" if half else ""
        self.settings = [imposed.parse(text) for text in settings]
        model, _, side = name.rpartition("@")
        self.layer = model.isdigit()
        if self.layer:
            case = Case(Layer(int(model), int(side)))
            self.model, self.plain, self.example = case.network(), case.network(), case.input
        else:
            self.model, self.plain = load_model(model, int(side))
            self.example = random_input(1, 3, int(side), int(side))

    def write(self, folder: Path, engines: Sequence[str]) -> list[Run]:
        """The files into `folder`, and what to run. Peers' files are kept where they exist: they are slow to
        make and depend on nothing of ours."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "x.npy", self.example.numpy())
        with torch.inference_mode():
            dense = first_array(self.plain(self.example))
        runs = []
        for engine in engines:
            if engine == "semisparse":
                runs += self._own(folder)
                continue
            file = self._peer(folder, engine)
            np.save(folder / f"{file}.npy", dense)
            runs.append(Run(engine, "dense", folder / file, self.option))
            if engine == "torch":
                runs.append(Run(engine, "dense, channels_last", folder / file, "channels_last"))
        return runs

    def _own(self, folder: Path) -> list[Run]:
        runs = []
        for number, setting in enumerate(self.settings):
            skip = () if self.layer else None
            network = imposed.impose(copy.deepcopy(self.model), setting, self.example, skip=skip)
            network = ss.convert(network, self.example, free_size=False)
            file = f"own-{number}.safetensors"
            ss.save(network, folder / file)
            with torch.inference_mode():
                np.save(folder / f"{file}.npy", first_array(network(self.example)))
            runs.append(Run("semisparse", setting.label, folder / file, self.option))
            if self.layer and setting.dense and not self.option:
                runs += [Run("semisparse", f"dense, {name}", folder / file, name) for name in FORCED]
        return runs

    def _peer(self, folder: Path, engine: str) -> str:
        files = {"torch": "torch.pt", "ncnn": "ncnn.param", "mnn": "model.mnn"}
        file = files.get(engine, "model.onnx")
        if (folder / file).exists():
            return file
        # The exporters change modules (BatchNorm is folded, layouts change): each gets a copy.
        model: nn.Module = copy.deepcopy(self.plain)
        with torch.no_grad():
            if engine == "torch":
                torch.jit.trace(model, self.example, check_trace=False).save(str(folder / file))
            elif engine == "ncnn":
                ncnn.convert(model, self.example, folder)
            else:
                path = onnx.export(model, self.example, str(folder))
                if engine == "mnn":
                    mnn.convert(path, folder / file)
        return file


def digest(run: Run) -> str:
    """Of all that determines what a run executes, but for the engine itself."""
    text = hashlib.sha256(f"{run.engine} {run.option}".encode())
    files = [run.file.with_name("x.npy"), run.file]
    if run.engine == "ncnn":
        files.append(run.file.with_suffix(".bin"))
    for file in files:
        text.update(file.read_bytes())
    return text.hexdigest()
