"""Shared by all tests: benchmarks stay out of the normal run."""

from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"


def pytest_ignore_collect(collection_path, config):
    """Collect `tests/bench` only when the command line names it: its numbers need a quiet machine."""
    if collection_path != BENCH and BENCH not in collection_path.parents:
        return None
    named = [
        Path(arg.split("::")[0]).resolve() for arg in config.invocation_params.args if not arg.startswith("-")
    ]
    return None if any(path == BENCH or BENCH in path.parents for path in named) else True


@pytest.fixture(scope="session")
def yolo_run(tmp_path_factory):
    """(directory of a sparse YOLO training on drawn shapes that was killed and resumed, its summary)."""
    import yolo

    yolo.require()
    from semisparse.train.detect import main

    directory = tmp_path_factory.mktemp("yolo")
    arguments = yolo.options(directory, yolo.EPOCHS)
    yolo.start_and_kill(arguments, directory / "run", epochs=yolo.EPOCHS // 2)
    return directory / "run", main([*arguments, "--resume"])
