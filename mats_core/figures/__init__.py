"""Results → plotly figures; no files, no page.

Every function returns a `Figure`: what to draw, what a screen reader says, and one or two sentences
with the numbers of this very result.  One colour, dash and marker a task everywhere (Okabe–Ito;
its black, which a dark page would swallow, is grey here).  Backgrounds and fonts are left to the
page's theme.
"""

from .accuracy import accuracy_bars, baseline_bars, headline
from .base import PALETTE, Figure, Look, look, looks, percent, safe, short_names, to_csv
from .comparing import ALL_TASKS, count_clear, difference_lines, run_lines
from .confusion import confusion, confusion_change, largest_mistake, worth_showing
from .forecasting import interference_map, predicted_against_measured
from .heatmaps import QUANTITIES, family_heatmap, layer_profile
from .interference import angle_curves, pair_matrix
from .loading import loading_curves, loading_steps
from .protection import concentration, protection_along, protection_maps
from .scaling import dimension_weights, task_weights
from .solving import residual_curves, solve_at, trajectory_curves, trajectory_tasks
from .spectral import energy_curves, spectra
from .sweeping import sweep_map
from .toy import toy_losses, toy_polar, toy_progress, toy_scaling

__all__ = [
    "ALL_TASKS",
    "PALETTE",
    "QUANTITIES",
    "Figure",
    "Look",
    "accuracy_bars",
    "angle_curves",
    "baseline_bars",
    "concentration",
    "confusion",
    "confusion_change",
    "count_clear",
    "difference_lines",
    "dimension_weights",
    "energy_curves",
    "family_heatmap",
    "headline",
    "interference_map",
    "largest_mistake",
    "layer_profile",
    "loading_curves",
    "loading_steps",
    "look",
    "looks",
    "pair_matrix",
    "percent",
    "predicted_against_measured",
    "protection_along",
    "protection_maps",
    "residual_curves",
    "run_lines",
    "safe",
    "short_names",
    "solve_at",
    "spectra",
    "sweep_map",
    "task_weights",
    "to_csv",
    "toy_losses",
    "toy_polar",
    "toy_progress",
    "toy_scaling",
    "trajectory_curves",
    "trajectory_tasks",
    "worth_showing",
]
