"""Results in a notebook: what a record says of itself, as small HTML and as text of a few lines.

Everything is self-contained and offline, and readable on light and dark pages.
"""

from .markup import markup, text

__all__ = ["markup", "text"]
