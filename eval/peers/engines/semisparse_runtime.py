"""semisparse.runtime: the same kernels without torch, memory planned once, one call into C++."""

from pathlib import Path

from torch import Tensor, nn

PACKAGES = ("semisparse",)


def build(model: nn.Module, example: Tensor, threads: int, directory: str):
    import semisparse as ss
    from semisparse import runtime
    from semisparse.converted import ConvertedModel

    network = model if isinstance(model, ConvertedModel) else ss.convert(model, example, free_size=False)
    path = Path(directory) / "runtime.safetensors"
    ss.save(network, path)
    runtime.set_num_threads(threads)
    planned, array = runtime.load(path), example.contiguous().numpy()
    return lambda: planned(array)
