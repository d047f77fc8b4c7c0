"""All weight schemes by their name in recipes."""

from __future__ import annotations

from . import patterns, unstructured
from .scheme import Scheme

SCHEMES: dict[str, Scheme] = {
    "pattern": patterns.SCHEME,
    "unstructured": unstructured.SCHEME,
}
