"""Training that arranges sparsity on purpose (installed as `semisparse.train`)."""

from .distillation import Distillation
from .sparsifier import Sparsifier

__all__ = ["Distillation", "Sparsifier"]
