"""Results → plotly figures; no files, no page.

Every function returns a `Figure`: what to draw, what a screen reader says, and one or two sentences
with the numbers of this very result.  One colour, dash and marker a task everywhere (Okabe–Ito;
its black, which a dark page would swallow, is grey here).  Backgrounds and fonts are left to the
page's theme.
"""

from .accuracy import accuracy_bars, baseline_bars, headline
from .base import PALETTE, Figure, Look, look, looks, percent, safe, short_names, to_csv
from .heatmaps import QUANTITIES, family_heatmap, layer_profile
from .interference import angle_curves, pair_matrix
from .protection import concentration, protection_along, protection_maps
from .scaling import dimension_weights, task_weights
from .solving import residual_curves, trajectory_curves, trajectory_tasks
from .spectral import energy_curves, spectra

__all__ = [
    "PALETTE",
    "QUANTITIES",
    "Figure",
    "Look",
    "accuracy_bars",
    "angle_curves",
    "baseline_bars",
    "concentration",
    "dimension_weights",
    "energy_curves",
    "family_heatmap",
    "headline",
    "layer_profile",
    "look",
    "looks",
    "pair_matrix",
    "percent",
    "protection_along",
    "protection_maps",
    "residual_curves",
    "safe",
    "short_names",
    "spectra",
    "task_weights",
    "to_csv",
    "trajectory_curves",
    "trajectory_tasks",
]
