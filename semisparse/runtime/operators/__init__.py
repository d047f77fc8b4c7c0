"""The operators of saved graphs for numpy: what convolutional classifiers and detectors are made of.

Names, arguments and meaning are those of `semisparse.graph`, that is, of PyTorch's ATen. There are three
kinds:

- *computing* operators take a keyword `out`: an array to write the result to, or None for a new one;
- *views* return an array that shares memory with their first argument wherever numpy can (a reshape of an
  array that is not contiguous cannot: the caller copies then);
- *values* are integers and constants, which depend on the shapes of tensors at most.

All arrays that computing operators return are C-contiguous.
"""

from __future__ import annotations

from semisparse.runtime.operators import (  # noqa: F401  they fill the tables
    arithmetic,
    linear,
    pooling,
    reductions,
    resizing,
    values,
    views,
)
from semisparse.runtime.operators.convolution import convolution_arguments
from semisparse.runtime.operators.joining import concatenation_axis
from semisparse.runtime.operators.registry import BINDERS, COMPUTE, VALUES, VIEWS

__all__ = ["BINDERS", "COMPUTE", "VALUES", "VIEWS", "concatenation_axis", "convolution_arguments"]
