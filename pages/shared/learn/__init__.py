"""The page Learn: two tasks and two parameters to drag, and lessons on the sample family."""

__all__ = ["lessons", "steps"]
