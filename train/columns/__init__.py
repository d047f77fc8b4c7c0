"""Column sparsity while training: which output pixels are removed, when, and how it is decided."""
