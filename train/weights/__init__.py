"""Weight sparsity while training: which weights are removed, when, and how training prepares for it."""
