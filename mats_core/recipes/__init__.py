"""What is asked for, opened, and what came of it: recipes, families, plans, reports and events.

A recipe names models and a method; its plan holds them opened, with a role for every tensor.  How
a plan becomes bytes stands in `merging`, above.
"""

from .candidates import Candidate, Proposal, candidates, proposal, proposed_base
from .chosen import SHOWN, ChosenInputs, Margin, Picked
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
from .family_file import (
    MEAN,
    FamilyFile,
    load_family,
    measure_all,
    measuring_all,
    missing_statistics,
)
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
    saved_names_of,
    statistics_of,
    weights_of,
)
from .plan import (
    Inputs,
    Plan,
    Unit,
    complete,
    open_inputs,
    prepare,
    under_base_names,
    units,
    with_statistics,
)
from .progress import Shares, Stages
from .recipe import (
    IN_MEMORY,
    Recipe,
    dump_recipe,
    load_recipe,
    parse_options,
    parse_recipe,
    pinned_models,
    taking_part,
)
from .refined import Epoch, Refined
from .report import (
    SERIES,
    VERSION,
    LayerReport,
    Report,
    TaskList,
    Trial,
    layer_dict,
    layer_of,
    task_dict,
    task_of_dict,
)
from .required import require_recipe
from .routed_folder import read_branches, write_branches
from .sections import FINAL, TRIED, Evaluation, ExpertEntry, LoraOutput, Refine, Routed, Rule
from .settings import settings_of
from .sums import EarlierMerge, KeptSums, require_same_layers
from .tuned import Tuned
from .tuning import as_tuned, still_tuned, tuning_notes
from .walked import BLOCK, INPUTS, STAGE, STREAMS, FeatureErrors, StageErrors

__all__ = [
    "BLOCK", "FINAL", "INPUTS", "IN_MEMORY", "MEAN", "SERIES", "SHOWN", "STAGE", "STREAMS",
    "TRIED", "VERSION", "Candidate", "ChosenInputs", "EarlierMerge", "Epoch", "EpochDone",
    "Evaluation", "Examined", "ExpertEntry", "FamilyFile", "FeatureErrors", "Finished",
    "Inputs", "InputsChosen", "Iteration", "KeptSums", "LayerDone", "LayerReport", "LoraOutput",
    "Margin", "Picked", "Plan", "Proposal", "Recipe", "Refine", "Refined", "Report",
    "RoundDone", "Routed", "Rule", "Shares", "Source", "StageErrors", "Stages", "Started",
    "TaskDone", "TaskList", "Trial", "TrialDone", "Tuned", "Unit", "as_tuned", "by_hand",
    "by_text", "candidates", "complete", "distinct_names", "dump_family", "dump_recipe",
    "inputs_of", "layer_dict", "layer_of", "load_family", "load_recipe", "measure_all",
    "measured_of", "measuring_all", "missing_statistics", "named", "new_family", "open_inputs",
    "open_source", "parse_options", "parse_recipe", "patterns", "pinned_models", "plain_name",
    "prepare", "proposal", "proposed_base", "read_branches", "recipe_of", "reference",
    "remove_family", "require_recipe", "require_same_layers", "save_family", "saved_names_of",
    "settings_of", "statistics_of", "still_tuned", "taking_part", "task_dict", "task_of",
    "task_of_dict", "tuning_notes", "under_base_names", "units", "weights_of", "with_statistics",
    "write_branches",
]  # fmt: skip
