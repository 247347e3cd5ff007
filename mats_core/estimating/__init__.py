"""What a merge will cost, from shapes alone: memory, disk and time, and whether that fits."""

from . import merge_cost
from .fitting import fits, require
from .merge_cost import Estimate, estimate, estimate_plan

__all__ = ["Estimate", "estimate", "estimate_plan", "fits", "merge_cost", "require"]
