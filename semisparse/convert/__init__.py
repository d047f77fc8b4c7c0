"""From a training model to one that runs fast: `convert`, and the records of what it did to each layer.

`trace` exports a clean operator graph, `fuse` decides what becomes part of each convolution, `lower` writes
the result as a `semisparse.graph.Graph`, which `semisparse.converted` runs.
"""

from semisparse.convert.lower import convert
from semisparse.layers import LayerRecord

__all__ = ["LayerRecord", "convert"]
