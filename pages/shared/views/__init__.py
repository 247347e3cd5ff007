"""One tab or card a file: results of the library as figures and words on a page."""

from typing import TYPE_CHECKING

from .answers import BEFORE, OTHER

if TYPE_CHECKING:
    from . import (
        advice,
        between,
        bringing,
        chosen,
        comparison,
        conflict,
        confusion,
        convergence,
        estimate,
        export,
        feature_map,
        film,
        final,
        intermediate,
        ladder,
        layer_table,
        leaderboard,
        loading,
        merging,
        models,
        new_family,
        new_members,
        new_tasks,
        one_layer,
        overlap,
        own_example,
        picks,
        predicted_loss,
        protection,
        recipe,
        results,
        runs,
        search,
        shipped,
        sizes,
        soup,
        spectra,
        stepping,
        survey,
        sweep,
        ticked,
        trials,
        welcome,
        why,
    )

__all__ = [
    "BEFORE", "OTHER", "advice", "between", "bringing", "chosen", "comparison", "conflict",
    "confusion", "convergence", "estimate", "export", "feature_map", "film", "final",
    "intermediate", "ladder", "layer_table", "leaderboard", "loading", "merging", "models",
    "new_family", "new_members", "new_tasks", "one_layer", "overlap", "own_example", "picks",
    "predicted_loss", "protection", "recipe", "results", "runs", "search", "shipped", "sizes",
    "soup", "spectra", "stepping", "survey", "sweep", "ticked", "trials", "welcome", "why",
]  # fmt: skip
