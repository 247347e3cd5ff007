"""The page Learn: two tasks and two parameters to drag, and lessons on real models."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import guide, lessons, steps

__all__ = ["guide", "lessons", "steps"]
