"""A search beyond a grid, in the worker; its journal lies beside the runs of the family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mats_core.analysis import Knob, Objective, Searched, SearchTrialDone, Space, searching
from mats_core.recipes import Recipe
from mats_core.system import part

from . import again, runs
from .following import gathering, told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run

JOURNALS = "searches"  # the folder in that of a family's runs


@dataclass(frozen=True)
class SearchRequest:
    """The search that was asked for.

    name     of its journal: all that decides on its trials
    knobs    what it turns; titles name them as the page does
    like     the run whose settings it begins with; None: those of the method
    """

    family: str
    recipe: Recipe
    space: Space
    objectives: tuple[Objective, ...]
    knobs: tuple[Knob, ...]
    titles: Mapping[str, str]
    trials: int
    minutes: float | None
    examples: int
    seed: int = 0
    name: str = ""
    like: Run | None = None


def journal(request: SearchRequest) -> Path:
    """The file that holds the trials of a search."""
    return runs.folder(request.family) / JOURNALS / f"{request.name}.journal"


def run_search(request: SearchRequest, prepared: Prepared, tell: Tell) -> Searched:
    """All trials of a search, those of an earlier press included; what is known so far is told on
    the way."""
    if request.like is None:
        inputs = again.of_family(prepared, request.recipe)
    else:
        _, inputs = again.opened(request.like, prepared)
    events = searching(
        request.recipe, request.space, objectives=request.objectives, trials=request.trials,
        minutes=request.minutes, examples=request.examples, seed=request.seed,
        journal=journal(request), resume=True, inputs=inputs,
    )  # fmt: skip
    known = gathering(SearchTrialDone, lambda event: event.trial)
    return told(part(events, said="Searching: {}"), tell, known)
