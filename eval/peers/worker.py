"""The process of one candidate: builds it, then times calls when it is told to.

`python -m semisparse.eval.peers.worker ENGINE MODEL_DIRECTORY THREADS CORES SHAPE`. It reads commands, one
number of calls a line, from standard input, and writes one JSON object a line to what was its standard output
when it started; whatever the engine prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    engine, directory, threads, cores, shape = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _end_with_parent()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    try:
        first = _prepare(engine, Path(directory), int(threads), [int(size) for size in shape.split(",")])
    except ModuleNotFoundError as error:
        reply = {"failed": f"{error.name} is not installed", "missing": True}
    except Exception as error:  # engines raise whatever they like; the reason is part of the report
        reply = {"failed": f"{type(error).__name__}: {error}"}
    else:
        call, reply = first
    print(json.dumps(reply), file=replies)
    if "failed" in reply:
        return
    import torch

    from semisparse.latency import no_garbage_collection, timed

    with torch.inference_mode(), no_garbage_collection():
        for command in sys.stdin:
            call()  # refills the caches
            print(json.dumps({"seconds": timed(call, int(command))}), file=replies)


def _prepare(name: str, directory: Path, threads: int, shape: list[int]):
    import torch
    from safetensors.numpy import load_file

    from semisparse.eval.peers.candidates import EXPECTED, difference, first_array, read
    from semisparse.eval.peers.engines import engine
    from semisparse.latency import random_input

    torch.set_num_threads(threads)
    example = random_input(*shape)
    build = engine(name).build
    begin = time.perf_counter()
    with torch.no_grad():
        call = build(read(directory), example, threads, str(directory))
    with torch.inference_mode():
        error = difference(first_array(call()), load_file(directory / EXPECTED)["output"])
    return call, {"build_seconds": time.perf_counter() - begin, "difference": error}


def _end_with_parent() -> None:
    """Workers are paused while others run; one whose parent was killed would stay so."""
    if sys.platform == "linux":
        import ctypes
        import signal

        with contextlib.suppress(OSError, AttributeError):
            pr_set_pdeathsig = 1
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    main()
