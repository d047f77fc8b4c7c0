"""Convolutional networks made fast on CPUs, ARM first, by sparsity that training arranges on purpose.

Importing this package is cheap and does not import torch, so that `semisparse.runtime` works on a board that
has none. Names load what they need when they are first used. The PyTorch operators (`torch.ops.semisparse.*`)
are there as soon as both torch and this package have been imported, in either order.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_FUNCTIONS = {
    "Recipe": "semisparse.recipe",
    "SizedModel": "semisparse.sized",
    "convert": "semisparse.convert",
    "cpu_info": "semisparse.runtime",
    "explain": "semisparse.explain",
    "kernel_name": "semisparse.runtime",
    "load": "semisparse.io",
    "save": "semisparse.io",
    "statistics": "semisparse.statistics",
    "tune": "semisparse.tuning",
}
_MODULES = ("eval", "masking", "ops", "runtime", "train")

__all__ = sorted([*_FUNCTIONS, *_MODULES])

if TYPE_CHECKING:
    from semisparse.convert import convert as convert
    from semisparse.explain import explain as explain
    from semisparse.io import load as load
    from semisparse.io import save as save
    from semisparse.recipe import Recipe as Recipe
    from semisparse.sized import SizedModel as SizedModel
    from semisparse.statistics import statistics as statistics
    from semisparse.tuning import tune as tune


class _Package(ModuleType):
    """Lets a function and the module that holds it share a name: `semisparse.convert(model, x)` stays a
    function when Python's import system, having imported the module `semisparse.convert`, stores it as an
    attribute here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FUNCTIONS and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _FUNCTIONS:
            value = getattr(importlib.import_module(_FUNCTIONS[name]), name)
            setattr(self, name, value)
            return value
        if name in _MODULES:
            return importlib.import_module(f"semisparse.{name}")
        raise AttributeError(f"module 'semisparse' has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package

# Imported after torch: register the operators now. Before torch: torch does it (see _semisparse_autoload.py).
if "torch" in sys.modules:
    from semisparse import _library

    _library.register()
