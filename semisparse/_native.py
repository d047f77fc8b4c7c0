"""Why the native numpy module cannot be imported, in words."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

_REMEDY = """To build it for this machine and this Python, in a checkout of semisparse:
    pip install --no-build-isolation --no-deps -e .    (SEMISPARSE_WITHOUT_TORCH=1 where there is no torch)"""
_MODULE = re.compile(r"_core\.(\w+?)-(\d)(\d+)\w*-(\w+?)(?:-linux.*|-darwin.*)?\.(?:so|pyd)")


def explain(error: ImportError, directory: Path | None = None) -> str:
    """Text for the ImportError that users get: what was built, what is running, what to do.

    Args:
        error: what Python said.
        directory: where to look for the module; default: this package.
    """
    directory = Path(__file__).parent if directory is None else directory
    running = f"CPython {sys.version_info[0]}.{sys.version_info[1]} on {platform.machine()}"
    built = [
        f"CPython {found[2]}.{found[3]} on {found[4]}"
        for path in sorted(directory.glob("_core.*"))
        if (found := _MODULE.fullmatch(path.name))
    ]
    if built and running not in built:
        what = f"it was built for {', '.join(built)}, and this is {running}; one does not fit the other"
    elif built:
        what = f"it is there, but {error}"
    else:
        what = "it has not been built: this looks like a source tree that was not installed"
    return f"semisparse's native module cannot be imported: {what}.\n{_REMEDY}"
