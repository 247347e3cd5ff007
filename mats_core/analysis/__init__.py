"""Seeing why a merge works: spectra, overlaps, protection, convergence, loading, sweeps.

Results are plain records; the room `figures` draws them, under the same nouns.
"""

from . import convergence, loading, toy
from .between import Between, walking
from .conflict import Conflicts, conflicting
from .convergence import Trajectory, follow
from .correlation import Correlation, clear_among, correlate, correlate_pairs
from .decided import Decided, decided, usual_share
from .distances import Distances, measuring_distances
from .feature_map import NEAREST, FeatureMap, mapping, travelling, under_experts
from .film import Film, Frame, FrameDone, filming
from .forecast import Forecast, forecasting
from .groups import WAYS, Way, merges
from .intermediate import (
    DONATION_EXAMPLES,
    LAMBDAS,
    Donated,
    Donation,
    DonationDone,
    Donations,
    donating,
    finally_asked,
    gained,
)
from .ladder import Stand, Stood, climb, of_rung, steps
from .layers import LayerRow, tabulating
from .loading import GRAINS, ORDERINGS, THREE, Grain, Loading, Ordering, Step
from .overlap import chance_conflict, others_mean, overlaps, unrelated_angles
from .own_example import BASE, OwnAnswers, answering, fields
from .predicted_loss import Interference, interference, predicting
from .protection import SUBSPACES, Protection, Subspace, layer_protection
from .reasons import TRAITS, Trait, reasons, traits
from .search import TRIALS, Searched, pareto, recipe_of, search, searching
from .search_space import Knob, Space, bands, knobs_of, with_values
from .search_trials import OBJECTIVES, Objective, SearchTrial, SearchTrialDone
from .sizes import RANKS, Sized, SizeDone, sizing
from .soup import GreedySoup, Ingredient, IngredientDone, greedy_soup
from .spectra import (
    KINDS,
    Kind,
    Spectrum,
    layer_spectra,
    layer_subspaces,
    overlap,
    principal_angles,
)
from .stages import VIEWS, LayerSteps, Seen, View, Window, stepping, task_matrices
from .survey import OF_A_KIND, Quantity, Survey, Surveyed, survey, surveying
from .sweep import EXAMPLES, Axis, Cell, CellDone, best, knobs, suggested, sweep
from .toy import Essential, Merged, Point, Task, Walk
from .why import Why, explaining

__all__ = [
    "BASE", "DONATION_EXAMPLES", "EXAMPLES", "GRAINS", "KINDS", "LAMBDAS", "NEAREST", "OBJECTIVES",
    "OF_A_KIND", "ORDERINGS", "RANKS", "SUBSPACES", "THREE", "TRAITS", "TRIALS", "VIEWS", "WAYS",
    "Axis", "Between", "Cell", "CellDone", "Conflicts", "Correlation", "Decided", "Distances",
    "Donated", "Donation", "DonationDone", "Donations", "Essential", "FeatureMap", "Film",
    "Forecast", "Frame", "FrameDone", "Grain", "GreedySoup", "Ingredient", "IngredientDone",
    "Interference", "Kind", "Knob", "LayerRow", "LayerSteps", "Loading", "Merged", "Objective",
    "Ordering", "OwnAnswers", "Point", "Protection", "Quantity", "SearchTrial", "SearchTrialDone",
    "Searched", "Seen", "SizeDone", "Sized", "Space", "Spectrum", "Stand", "Step", "Stood",
    "Subspace", "Survey", "Surveyed", "Task", "Trait", "Trajectory", "View", "Walk", "Way", "Why",
    "Window", "answering", "bands", "best", "chance_conflict", "clear_among", "climb",
    "conflicting", "convergence", "correlate", "correlate_pairs", "decided", "donating",
    "explaining", "fields", "filming", "finally_asked", "follow", "forecasting", "gained",
    "greedy_soup", "interference", "knobs", "knobs_of", "layer_protection", "layer_spectra",
    "layer_subspaces", "loading", "mapping", "measuring_distances", "merges", "of_rung",
    "others_mean", "overlap", "overlaps", "pareto", "predicted_loss", "predicting",
    "principal_angles", "reasons", "recipe_of", "search", "searching", "sizing", "stepping",
    "steps", "suggested", "survey", "surveying", "sweep", "tabulating", "task_matrices", "toy",
    "traits", "travelling", "under_experts", "unrelated_angles", "usual_share", "walking",
    "with_values",
]  # fmt: skip
