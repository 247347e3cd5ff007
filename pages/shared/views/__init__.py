"""One tab or card a file: results of the library as figures and words on a page."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import (
        chosen,
        comparison,
        confusion,
        convergence,
        estimate,
        export,
        loading,
        merging,
        models,
        overlap,
        predicted_loss,
        protection,
        recipe,
        results,
        runs,
        spectra,
        survey,
        sweep,
    )

__all__ = [
    "chosen", "comparison", "confusion", "convergence", "estimate", "export", "loading", "merging",
    "models", "overlap", "predicted_loss", "protection", "recipe", "results", "runs", "spectra",
    "survey", "sweep",
]  # fmt: skip
