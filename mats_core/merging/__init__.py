"""TODO."""

from . import pipeline, rounds
from .family_file import Collection, load_collection, measure_all, missing_statistics
from .journal import layers_done
from .pipeline import evaluate_output, merge, run
from .plan import Inputs, Job, Unit, choose_device, open_inputs, pieces, prepare, read_layer, units
from .progress import Progress
from .recipe import (
    Evaluation,
    ExpertEntry,
    OptionField,
    Recipe,
    describe,
    dump_recipe,
    load_recipe,
    parse_options,
    parse_recipe,
)
from .report import (
    VERSION,
    Event,
    Finished,
    LayerDone,
    LayerReport,
    Report,
    RoundDone,
    Started,
    TaskDone,
    TrialDone,
    task_dict,
)
from .rounds import Measuring, examples_of
from .sinks import output_specs

__all__ = [
    "VERSION",
    "Collection",
    "Evaluation",
    "Event",
    "ExpertEntry",
    "Finished",
    "Inputs",
    "Job",
    "LayerDone",
    "LayerReport",
    "Measuring",
    "OptionField",
    "Progress",
    "Recipe",
    "Report",
    "RoundDone",
    "Started",
    "TaskDone",
    "TrialDone",
    "Unit",
    "choose_device",
    "describe",
    "dump_recipe",
    "evaluate_output",
    "examples_of",
    "layers_done",
    "load_collection",
    "load_recipe",
    "measure_all",
    "merge",
    "missing_statistics",
    "open_inputs",
    "output_specs",
    "parse_options",
    "parse_recipe",
    "pieces",
    "pipeline",
    "prepare",
    "read_layer",
    "rounds",
    "run",
    "task_dict",
    "units",
]
