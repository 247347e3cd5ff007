"""TODO."""

__all__ = ["caches", "families", "navigation", "show"]
