"""TODO."""

from . import merge_cost
from .merge_cost import Estimate, duration, estimate, fits, layer_bytes, require, size

__all__ = [
    "Estimate",
    "duration",
    "estimate",
    "fits",
    "layer_bytes",
    "merge_cost",
    "require",
    "size",
]
