"""What every page stands in: navigation, the family, caches, and ways to show things."""

__all__ = ["caches", "families", "navigation", "show", "state"]
