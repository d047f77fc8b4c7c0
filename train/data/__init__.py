"""Image classification data: `load_data` gives a training and a validation loader for one `--data` value."""

from .load import ClassificationData, load_data

__all__ = ["ClassificationData", "load_data"]
