"""TODO."""

__all__ = ["lessons", "steps"]
