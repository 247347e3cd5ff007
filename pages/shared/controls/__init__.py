"""TODO."""

__all__ = ["grid", "settings", "widgets"]
