"""Training that arranges sparsity on purpose (installed as `semisparse.train`)."""

from .columns.held_out import HeldOut
from .distillation import Distillation
from .sparsifier import Sparsifier

__all__ = ["Distillation", "HeldOut", "Sparsifier"]
