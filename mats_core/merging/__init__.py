"""A recipe becomes bytes: read layer by layer, merged, written, evaluated and reported.

`run(recipe)` is a stream of events that ends with `Finished`.  Whether the merge fits this machine
is judged before, at the front door (`mats_core.api`).
"""

import warnings
from typing import Any

from .. import recipes
from ..system import Event
from . import pipeline, rounds
from .as_lora import most_bytes as lora_bytes
from .asking import evaluate_output, evaluating_output
from .calibration import calibrating_one, walking_beside
from .calibration_inputs import source_of
from .directory import reads_of, require_output
from .engine import merge_one
from .journal import layers_done
from .keeping import no_sums
from .mean_base import averaging
from .merged import Merge
from .pipeline import (
    inputs_of_last_round,
    kept,
    merge,
    planned,
    run,
    run_plan,
    work_done,
)
from .reading import pieces, read_layer
from .records import family_record, recipe_record, weights_record
from .rounds import examples_of
from .routing import most_bytes
from .shipped import Shipped, differing, ship_results, shipped_results, task_digests
from .side_by_side import streams_budget
from .sinks import output_specs
from .sizes import (
    bytes_at_once,
    cost_of,
    gram_sides,
    inputs_bytes,
    shape_of,
    statistics_sizes,
    together,
)

__all__ = [
    "Event", "Merge", "Shipped", "averaging", "bytes_at_once", "calibrating_one", "cost_of",
    "differing", "evaluate_output", "evaluating_output", "examples_of", "family_record",
    "gram_sides", "inputs_bytes", "inputs_of_last_round", "kept", "layers_done", "lora_bytes",
    "merge", "merge_one", "most_bytes", "no_sums", "output_specs", "pieces", "pipeline",
    "planned", "read_layer", "reads_of", "recipe_record", "require_output", "rounds", "run",
    "run_plan", "shape_of", "ship_results", "shipped_results", "source_of", "statistics_sizes",
    "streams_budget", "task_digests", "together", "walking_beside", "weights_record",
    "work_done",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What this room handed out before `recipes` became a room of its own."""
    if name in recipes.__all__:
        told = f"'{name}' is handed out by mats_core.recipes, no more by mats_core.merging"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        return getattr(recipes, name)
    raise AttributeError(f"module 'mats_core.merging' has no attribute '{name}'")
