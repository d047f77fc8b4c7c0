"""Weight sparsity while training: which weights are removed, when, and how training prepares for it.

A *scheme* (`registry`) is a structure: pure functions from a weight to the mask of what it keeps. Patterns
have one of their own (`patterns`); all others cut the weight into `boxes` and remove the weakest. Whole
kernels (`connectivity`) go on top of any scheme. Filters that share a decision are brought together by
`grouping` and `order`.

A *method* (`methods`) brings a layer there between the recipe's `begin` and `end`: `admm`, `magnitude` or
`reweighted`. `layer` holds what is known of one layer, `allocation` shares one ratio out among layers, and
`sparsity` runs it all for `Sparsifier`.
"""
