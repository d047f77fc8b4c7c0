"""All weight schemes by their name in recipes."""

from __future__ import annotations

from . import unstructured
from .scheme import Scheme

SCHEMES: dict[str, Scheme] = {
    "unstructured": unstructured.SCHEME,
}
