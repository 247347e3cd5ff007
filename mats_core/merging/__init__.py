"""A recipe becomes bytes: read layer by layer, merged, written, evaluated and reported.

`run(recipe)` is a stream of events that ends with `Finished`.  Whether the merge fits this machine
is judged before, at the front door (`mats_core.api`).
"""

from ..system import Event
from . import pipeline, rounds
from .as_lora import most_bytes as lora_bytes
from .asking import evaluate_output, evaluating_output
from .calibration import calibrating_one, walking_beside
from .calibration_inputs import source_of
from .candidates import Candidate, Proposal, candidates, proposal, proposed_base
from .chosen import ChosenInputs, Margin, Picked
from .directory import require_output
from .engine import merge_one
from .events import (
    EpochDone,
    Examined,
    Finished,
    InputsChosen,
    Iteration,
    LayerDone,
    RoundDone,
    Started,
    TaskDone,
    TrialDone,
)
from .family_file import FamilyFile, load_family, measure_all, measuring_all, missing_statistics
from .family_folder import (
    by_hand,
    distinct_names,
    dump_family,
    new_family,
    plain_name,
    remove_family,
    save_family,
    task_of,
)
from .given import (
    Source,
    by_text,
    inputs_of,
    measured_of,
    named,
    open_source,
    patterns,
    recipe_of,
    reference,
    statistics_of,
    weights_of,
)
from .journal import layers_done
from .keeping import no_sums
from .mean_base import MEAN, averaging
from .merged import Merge
from .pipeline import (
    inputs_of_last_round,
    kept,
    merge,
    planned,
    run,
    run_plan,
)
from .plan import (
    Inputs,
    Plan,
    Unit,
    open_inputs,
    prepare,
    units,
    with_statistics,
)
from .progress import Shares
from .reading import pieces, read_layer
from .recipe import (
    FINAL,
    TRIED,
    Evaluation,
    ExpertEntry,
    LoraOutput,
    Recipe,
    Refine,
    Routed,
    Rule,
    dump_recipe,
    load_recipe,
    parse_options,
    parse_recipe,
)
from .records import family_record, recipe_record, weights_record
from .refined import Epoch, Refined
from .report import VERSION, LayerReport, Report, TaskList, task_dict, task_of_dict
from .required import require_recipe
from .rounds import examples_of
from .routed_folder import read_branches
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
from .tuned import Tuned
from .tuning import as_tuned, still_tuned
from .walked import FeatureErrors, StageErrors

__all__ = [
    "FINAL", "MEAN", "TRIED", "VERSION", "Candidate", "ChosenInputs", "Epoch", "EpochDone",
    "Evaluation", "Event", "Examined", "ExpertEntry", "FamilyFile", "FeatureErrors", "Finished",
    "Inputs", "InputsChosen", "Iteration", "LayerDone", "LayerReport", "LoraOutput", "Margin",
    "Merge", "Picked", "Plan", "Proposal", "Recipe", "Refine", "Refined", "Report", "RoundDone",
    "Routed", "Rule", "Shares", "Shipped", "Source", "StageErrors", "Started", "TaskDone",
    "TaskList", "TrialDone", "Tuned", "Unit", "as_tuned", "averaging", "by_hand", "by_text",
    "bytes_at_once", "calibrating_one", "candidates", "cost_of", "differing", "distinct_names",
    "dump_family", "dump_recipe", "evaluate_output", "evaluating_output", "examples_of",
    "family_record", "gram_sides", "inputs_bytes", "inputs_of", "inputs_of_last_round", "kept",
    "layers_done", "load_family", "load_recipe", "lora_bytes", "measure_all", "measured_of",
    "measuring_all", "merge", "merge_one", "missing_statistics", "most_bytes", "named",
    "new_family", "no_sums", "open_inputs", "open_source", "output_specs", "parse_options",
    "parse_recipe", "patterns", "pieces", "pipeline", "plain_name", "planned", "prepare",
    "proposal", "proposed_base", "read_branches", "read_layer", "recipe_of", "recipe_record",
    "reference", "remove_family", "require_output", "require_recipe", "rounds", "run", "run_plan",
    "save_family", "shape_of", "ship_results", "shipped_results", "source_of", "statistics_of",
    "statistics_sizes", "still_tuned", "streams_budget", "task_dict", "task_digests", "task_of",
    "task_of_dict", "together", "units", "walking_beside", "weights_of", "weights_record",
    "with_statistics",
]  # fmt: skip
