"""Checkpoints: dictionaries of tensors and plain values, written atomically, read without unpickling code."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from semisparse._files import replace_atomically
from semisparse.masking import BUFFER, attach_column_mask, column_mask, detach_column_mask

FORMAT = "semisparse.train/1"


def save_checkpoint(path: str | os.PathLike, state: dict) -> None:
    """Write `state` (tensors and plain values); a crash leaves the old file or the new one."""
    with replace_atomically(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: str | os.PathLike) -> dict:
    """Read a checkpoint of `save_checkpoint`, or a bare state dict, which comes back as {"model": ...}.

    Raises ValueError if the file is missing, not a checkpoint, or of another format version.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {str(path)!r} does not exist; give a checkpoint.pt that training wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # on foreign bytes the unpickler raises whatever it stumbles over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{str(path)!r} is not a checkpoint that can be read safely ({reason}); "
            "expected a file written by torch.save that holds only tensors and plain values"
        ) from error
    if not isinstance(state, dict) or not state:
        raise ValueError(
            f"{str(path)!r} holds a {type(state).__name__}, expected a checkpoint or a state dict"
        )
    if all(isinstance(value, Tensor) for value in state.values()):
        return {"model": state}
    if "format" in state and state["format"] != FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {state['format']!r}, this version reads {FORMAT!r}; "
            "use the version of semisparse that wrote it"
        )
    if not isinstance(state.get("model"), dict):
        raise ValueError(
            f"{str(path)!r} has no 'model' state dict; its entries are {sorted(map(str, state))[:8]}"
        )
    return state


def load_weights(model: nn.Module, state: dict[str, Tensor], *, source: str, masks: bool = True) -> None:
    """Load a state dict of exactly this architecture; its column masks are attached, or left out (`masks`).

    Raises ValueError, before anything is changed, if names or shapes differ.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}  # DistributedDataParallel
    weights = {name: value for name, value in state.items() if not _is_mask(name)}
    own = {name: value for name, value in model.state_dict().items() if not _is_mask(name)}
    missing, unexpected = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = [
        f"{name}: {tuple(weights[name].shape)} given, {tuple(own[name].shape)} expected"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        details = [
            f"{len(names)} {what}, e.g. {names[0]}"
            for names, what in (
                (missing, "entries missing"),
                (unexpected, "entries too many"),
                (shapes, "shapes differ"),
            )
            if names
        ]
        raise ValueError(
            f"{source} is a checkpoint of another model ({'; '.join(details)}); "
            f"choose the --model and the data set it was trained with"
        )
    found = {name.removesuffix(f".{BUFFER}"): value for name, value in state.items() if _is_mask(name)}
    for name, module in model.named_modules():
        if masks and name in found:
            attach_column_mask(module, found[name])
        elif column_mask(module) is not None:
            detach_column_mask(module)
    model.load_state_dict(weights, strict=False)


def _is_mask(name: str) -> bool:
    return name.rpartition(".")[2] == BUFFER
