"""What a merge will cost, from shapes alone: memory, disk and time, and whether that fits."""

from . import merge_cost
from .fitting import fits, require
from .merge_cost import Estimate, estimate

__all__ = ["Estimate", "estimate", "fits", "merge_cost", "require"]
