"""TODO."""

from .compatibility import Fit, architecture, compare, dtypes
from .expert import Expert
from .family import Family, examine
from .heads import HEAD_MODULES

__all__ = [
    "HEAD_MODULES",
    "Expert",
    "Family",
    "Fit",
    "architecture",
    "compare",
    "dtypes",
    "examine",
]
