"""MaTS Explorer's library: merge fine-tuned models, and see why a merge works.

    measure                       a module and its loader, or a checkpoint and its task → Statistics
    optimizer_statistics          the file of an AdamW's state → Statistics, without any data
    align                         a model with its units in another's order → its weights
    merge_models                  modules, state dicts or paths, mixed → Merge
    Merge                         a merged model: weights, report, state_dict, model, save
    evaluate                      a merge or a model, on a loader or a task → Score
    inspect                       what a model or a recipe holds, as plain values
    advise                        a family → which method to take, and why
    search                        a recipe → the best settings on validation data
    explore                       knobs over live merges, in a notebook

    load_recipe, parse_recipe     a Recipe from YAML or a dictionary
    load_family                   a FamilyFile: a base, its experts and their tasks
    merge                         recipe → Merge
    run                           recipe → events, for live callers

    METHODS                       the merging methods
    Report                        what happened to every tensor, and the accuracy on the tasks
    Statistics, measure_task      statistics of an expert on its task
    InputError                    what bad input raises

Names are imported when they are first used: `import mats_core` is quick.  Where PyTorch is not
loaded yet, it says how OpenMP's threads wait (`system/threads.py`), unless the environment does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .system import set_waiting, uncollected

if TYPE_CHECKING:
    from .aligning import align
    from .analysis import search
    from .api import evaluate, inspect, measure, merge, merge_models, run
    from .errors import InputError
    from .estimating import advise
    from .merging import Merge
    from .methods import METHODS
    from .notebook import explore
    from .recipes import FamilyFile, Recipe, Report, load_family, load_recipe, parse_recipe
    from .statistics import Statistics, measure_task, optimizer_statistics

__version__ = "0.2.0"
__all__ = [
    "METHODS", "FamilyFile", "InputError", "Merge", "Recipe", "Report", "Statistics", "advise",
    "align", "evaluate", "explore", "inspect", "load_family", "load_recipe", "measure",
    "measure_task", "merge", "merge_models", "optimizer_statistics", "parse_recipe", "run",
    "search",
]  # fmt: skip

set_waiting()

_HOMES = {
    "FamilyFile": "recipes",
    "InputError": "errors",
    "METHODS": "methods",
    "Merge": "merging",
    "Recipe": "recipes",
    "Report": "recipes",
    "Statistics": "statistics",
    "advise": "estimating",
    "align": "aligning",
    "evaluate": "api",
    "explore": "notebook",
    "inspect": "api",
    "load_family": "recipes",
    "load_recipe": "recipes",
    "measure": "api",
    "measure_task": "statistics",
    "merge": "api",
    "merge_models": "api",
    "optimizer_statistics": "statistics",
    "parse_recipe": "recipes",
    "run": "api",
    "search": "analysis",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mats_core' has no attribute '{name}'")
    with uncollected():
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
