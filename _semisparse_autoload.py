"""Called by torch at the end of its own import (entry point group ``torch.backends``), in every process that
has this package installed; so it costs nothing and loads nothing unless the program imported semisparse
before torch."""

import sys


def register() -> None:
    """Register the operators if semisparse was imported before torch."""
    if "semisparse" not in sys.modules:
        return
    from semisparse import _library

    try:
        _library.register()
    except Exception as error:  # whatever is wrong here must not take `import torch` down with it
        import warnings

        warnings.warn(str(error), RuntimeWarning, stacklevel=2)
