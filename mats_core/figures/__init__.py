"""Results → plotly figures; no files, no page.

Every function returns a `Figure`: what to draw, what a screen reader says, and one or two sentences
with the numbers of this very result.  One colour, dash and marker a task everywhere (Okabe–Ito;
its black, which a dark page would swallow, is grey here).  Backgrounds and fonts are left to the
page's theme.
"""

from .accuracy import accuracy_bars, baseline_bars, headline, headline_changes
from .between import way_between
from .chosen import Choice, chosen_scores, chosen_words
from .comparison import ALL_TASKS, count_clear, difference_lines, run_lines
from .conflict import conflict_matrix, forecast_matrix
from .confusion import confusion, confusion_change, largest_mistake, worth_showing
from .convergence import residual_curves, solve_at, trajectory_curves, trajectory_tasks
from .correlation import correlation_words
from .decided import decided_lines, decided_words
from .embed import CONFIG, plotly_script, script_json, to_json
from .examples import example_lines
from .feature_map import feature_map
from .film import feature_errors, film_lines
from .intermediate import donation_curves, donation_map
from .ladder import ladder_lines
from .layer_map import layer_map
from .loading import loading_curves, loading_steps
from .overlap import angle_curves, pair_matrix
from .own_example import own_answers
from .picture import picture
from .predicted_loss import interference_map, predicted_against_measured
from .protection import concentration, protection_along, protection_maps
from .reasons import reasons_figure, reasons_verdict
from .scaling import dimension_weights, task_weights
from .search import search_front, search_history, search_importance
from .sizes import accuracy_by_size
from .soup import soup_steps
from .spectra import energy_curves, spectra
from .stages import CHOSEN, stage_matrix, stages_words
from .style import HEIGHT, PALETTE, Figure, Look, look, looks, percent, safe, short_names, to_csv
from .survey import QUANTITIES, family_heatmap, layer_profile
from .sweep import sweep_map
from .toy import toy_losses, toy_polar, toy_progress, toy_scaling
from .why import asked_of_both, points, verdict, why_explained, why_layers, why_tasks

__all__ = [
    "ALL_TASKS", "CHOSEN", "CONFIG", "HEIGHT", "PALETTE", "QUANTITIES", "Choice", "Figure", "Look",
    "accuracy_bars", "accuracy_by_size", "angle_curves", "asked_of_both", "baseline_bars",
    "chosen_scores", "chosen_words", "concentration", "conflict_matrix", "confusion",
    "confusion_change", "correlation_words", "count_clear", "decided_lines", "decided_words",
    "difference_lines", "dimension_weights", "donation_curves", "donation_map", "energy_curves",
    "example_lines", "family_heatmap", "feature_errors", "feature_map", "film_lines",
    "forecast_matrix", "headline", "headline_changes", "interference_map", "ladder_lines",
    "largest_mistake", "layer_map", "layer_profile", "loading_curves", "loading_steps", "look",
    "looks", "own_answers", "pair_matrix", "percent", "picture", "plotly_script", "points",
    "predicted_against_measured", "protection_along", "protection_maps", "reasons_figure",
    "reasons_verdict", "residual_curves", "run_lines", "safe", "script_json", "search_front",
    "search_history", "search_importance", "short_names", "solve_at", "soup_steps", "spectra",
    "stage_matrix", "stages_words", "sweep_map", "task_weights", "to_csv", "to_json", "toy_losses",
    "toy_polar", "toy_progress", "toy_scaling", "trajectory_curves", "trajectory_tasks", "verdict",
    "way_between", "why_explained", "why_layers", "why_tasks", "worth_showing",
]  # fmt: skip
