"""TODO."""

from .answers import BEFORE

__all__ = [
    "BEFORE",
    "comparison",
    "confusion",
    "convergence",
    "estimate",
    "export",
    "loading",
    "merging",
    "models",
    "overlap",
    "predicted_loss",
    "protection",
    "recipe",
    "results",
    "runs",
    "spectra",
    "survey",
    "sweep",
]
