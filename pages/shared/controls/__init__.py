"""Controls that ask for a merge or a sweep, generated from the methods' own declarations."""

__all__ = ["grid", "presets", "settings", "widgets"]
