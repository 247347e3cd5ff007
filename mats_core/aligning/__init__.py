"""Experts of other starts: their units in the order of the model that they are merged with.

Two trainings from different beginnings, or from a permuted copy, number the same units differently;
a mean of their weights then mixes what has nothing to do with each other.  `align` finds which axes
of a model can change places (`structure.py`), and the order that is most like another model's
(`matching.py`).
"""

from .align import align, aligned_statistics, save, state_dict
from .matching import match
from .structure import Structure, structure_of
from .symmetry import Order, Part, Placement, Symmetry

__all__ = [
    "Order", "Part", "Placement", "Structure", "Symmetry", "align", "aligned_statistics", "match",
    "save", "state_dict", "structure_of",
]  # fmt: skip
