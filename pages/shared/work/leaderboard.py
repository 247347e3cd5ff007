"""Every method at its defaults on some experts of a family, one merge after another, in the worker.

Each is kept as a draft, tested on all validation examples: what is there already is not made again,
so a board that was stopped goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mats_core.errors import InputError
from mats_core.evaluation import TaskResult, share
from mats_core.methods import METHODS
from mats_core.recipes import TRIED, FamilyFile, require_recipe

from . import runs
from .jobs import Job, Tell
from .merge import Request, identity, merge, require_statistics
from .prepare import Prepared
from .runs import Run
from .several import turns

THREE = 3  # experts of the boards that ask what if there were fewer


@dataclass(frozen=True)
class BoardRequest:
    """The board that was asked for: which experts of which family."""

    collection: FamilyFile
    experts: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A method on the board.

    run      its merge, tested on all validation examples; None where there is none yet
    reason   why there can be none; empty where there can
    """

    method: str
    run: Run | None
    reason: str = ""


def places(request: BoardRequest, prepared: Prepared) -> list[Place]:
    """The board as far as it is known: those with most first, then those to come, then those that
    cannot be."""
    family = request.collection.name
    there = {
        run.id: run
        for run in runs.everything(family)
        if run.report.tasks and run.report.split == TRIED.split and not run.report.left
    }
    found = []
    for method in METHODS:
        try:
            id = identity(_asked(request, prepared, method), prepared)
            found.append(Place(method, there.get(id)))
        except InputError as error:
            found.append(Place(method, None, str(error)))
    kept = [(place.run.report.normalised_accuracy or 0.0) if place.run else -1 for place in found]
    order = sorted(range(len(found)), key=lambda i: (bool(found[i].reason), -kept[i]))
    return [found[i] for i in order]


def _asked(request: BoardRequest, prepared: Prepared, method: str) -> Request:
    """The merge of a method; raises `InputError` where these experts cannot be merged by it."""
    asked = Request(request.collection, method, {}, request.experts, draft=True)
    require_recipe(asked.recipe(prepared.files))
    require_statistics(asked)
    return asked


def job(request: BoardRequest, preparing: Job, name: str) -> Job:
    """The job that makes what is missing.  It is shared: what it makes is kept, whoever looks."""
    ready = preparing.outcome

    def work(tell: Tell) -> dict[str, str]:
        return fill(request, ready(), tell)

    title = "Merging by all methods"
    return Job(request, title, work, background=True, after=preparing, name=name, shared=True)


def fill(request: BoardRequest, prepared: Prepared, tell: Tell) -> dict[str, str]:
    """Make every merge that is missing; returns method → why it failed, of those that did."""
    failed: dict[str, str] = {}
    todo = [one for one in places(request, prepared) if one.run is None and not one.reason]
    requests = [_asked(request, prepared, place.method) for place in todo]
    steps = turns(tell, [asked.recipe(prepared.files) for asked in requests], prepared)
    for place, asked, step in zip(todo, requests, steps, strict=True):
        try:
            merge(asked, lambda: prepared, step)
        except InputError as error:
            failed[place.method] = str(error)
        except (ArithmeticError, RuntimeError) as error:  # torch's numerical errors are the latter
            lines = str(error).strip().splitlines() or ["no reason given"]
            failed[place.method] = f"{type(error).__name__}: {lines[0]}"
        step(1.0, "done", dict(failed))
    return failed


def subsets(results: Sequence[TaskResult]) -> dict[str, tuple[str, ...]]:
    """Three experts each, by what a merge of all keeps of them: the most, the least, and drawn."""
    ranked = [result.name for result in sorted(results, key=share, reverse=True)]
    drawn = random.Random(0).sample(sorted(ranked), min(THREE, len(ranked)))
    chosen = {"best kept": ranked[:THREE], "worst kept": ranked[-THREE:], "drawn at random": drawn}
    order = [result.name for result in results]
    return {said: tuple(sorted(names, key=order.index)) for said, names in chosen.items()}
