"""MaTS Explorer's library: merge fine-tuned models, and see why a merge works.

    load_recipe, parse_recipe     a recipe from YAML or a dictionary
    merge_models                  modules, state dicts or paths → Merge
    merge                         recipe → Merge: the weights, and the report
    run                           recipe → events, for live callers
    METHODS                       the merging methods
    measure                       a module and its loader, or a checkpoint and its task → Statistics
    Statistics, measure_task      statistics of an expert on its task
    InputError                    what bad input raises

Names are imported when they are first used: `import mats_core` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import measure, merge, merge_models, run
    from .errors import InputError
    from .merging import Merge, Recipe, Report, load_recipe, parse_recipe
    from .methods import METHODS
    from .statistics import Statistics, measure_task

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "InputError",
    "Merge",
    "Recipe",
    "Report",
    "Statistics",
    "load_recipe",
    "measure",
    "measure_task",
    "merge",
    "merge_models",
    "parse_recipe",
    "run",
]

_HOMES = {
    "InputError": "errors",
    "METHODS": "methods",
    "Merge": "merging",
    "Recipe": "merging",
    "Report": "merging",
    "Statistics": "statistics",
    "load_recipe": "merging",
    "measure": "api",
    "measure_task": "statistics",
    "merge": "api",
    "merge_models": "api",
    "parse_recipe": "merging",
    "run": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mats_core' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
