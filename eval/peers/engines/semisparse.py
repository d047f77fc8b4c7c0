"""semisparse itself: a converted model as it is, anything else converted first."""

from torch import Tensor, nn

PACKAGES = ("semisparse",)


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    import semisparse as ss
    from semisparse.converted import ConvertedModel

    network = model if isinstance(model, ConvertedModel) else ss.convert(model, example, free_size=False)
    return lambda: network(example)
