"""Controls that ask for a merge or a sweep, generated from the methods' own declarations."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import depth, further, grid, less, presets, search, settings, widgets

__all__ = ["depth", "further", "grid", "less", "presets", "search", "settings", "widgets"]
