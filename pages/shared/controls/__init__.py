"""Controls that ask for a merge, a sweep or a search, made from the methods' declarations."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import depth, further, grid, presets, search, settings, widgets

__all__ = ["depth", "further", "grid", "presets", "search", "settings", "widgets"]
