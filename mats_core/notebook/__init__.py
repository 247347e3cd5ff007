"""Results in a notebook: records as small HTML, and merges as the figures that the pages draw.

Everything is self-contained and offline, and readable on light and dark pages.
"""

from .markup import markup
from .show import show

__all__ = ["markup", "show"]
