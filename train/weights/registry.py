"""All weight schemes by their name in recipes."""

from __future__ import annotations

from . import block, block_punched, patterns, structured, unstructured
from .scheme import Scheme

SCHEMES: dict[str, Scheme] = {
    "pattern": patterns.SCHEME,
    "block_punched": block_punched.SCHEME,
    "block": block.SCHEME,
    "structured": structured.SCHEME,
    "unstructured": unstructured.SCHEME,
}
