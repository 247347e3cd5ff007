"""One tab or card a file: results of the library as figures and words on a page."""

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
