"""All methods by their name in recipes."""

from __future__ import annotations

from .admm import Admm
from .magnitude import Magnitude
from .method import Method
from .reweighted import Reweighted

METHODS: dict[str, type[Method]] = {
    "admm": Admm,
    "magnitude": Magnitude,
    "reweighted": Reweighted,
}
