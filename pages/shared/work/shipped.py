"""The merges that come finished with a family: kept among its runs, and checked on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

from mats_core.checkpoints import write_atomically
from mats_core.evaluation import QUICK
from mats_core.merging import (
    TRIED,
    FamilyFile,
    Recipe,
    Report,
    differing,
    shipped_results,
    task_digests,
)

from . import runs
from .jobs import Job, Tell
from .lesson import within
from .merge import Request, merge, refine
from .prepare import Prepared
from .runs import Run

ADOPTED = "shipped"  # the file that says which results were put among the runs
CHECKING = "Shipped with the family; this machine is merging it again to check it …"
NOISE = 0.01  # of the answers: more than rounding on another machine turns


def adopt(collection: FamilyFile) -> list[Run]:
    """The merges that came with a family and are among its runs, which they are put among once."""
    found = shipped_results(collection)
    if found is None:
        return []
    own = {_id(collection, report): report for report in found.reports}
    mark = hashlib.sha256(" ".join(own).encode()).hexdigest()
    file, kept = runs.folder(collection.name) / ADOPTED, runs.everything(collection.name)
    if not file.is_file() or file.read_text("utf-8") != mark:
        there = {run.id for run in kept}
        for id, report in own.items():
            if id not in there:
                size, recipe = len(collection.experts), _recipe(collection, report)
                runs.add(collection.name, size, recipe, report, shipped=CHECKING)
        write_atomically(file, mark.encode())
        kept = runs.everything(collection.name)
    return [run for run in kept if run.id in own]


def _recipe(collection: FamilyFile, report: Report) -> Recipe:
    return collection.recipe(report.method, dict(report.options), evaluate=TRIED, seed=report.seed)


def _id(collection: FamilyFile, report: Report) -> str:
    return runs.identity(_recipe(collection, report), report.fingerprints)


def unchecked(collection: FamilyFile) -> list[Run]:
    """The merges that came with a family and were not made again on this machine yet."""
    return [run for run in runs.everything(collection.name) if run.shipped == CHECKING]


def job(collection: FamilyFile, preparing: Job) -> Job:
    """The job that checks them.  It lasts: what it finds is kept, whichever tab is closed."""
    todo = partial(check, collection, preparing.outcome)
    title, name = "Checking the shipped merges", f"{collection.name} shipped"
    return Job(collection.name, title, todo, background=True, lasting=True, name=name)


def check(collection: FamilyFile, ready: Callable[[], Prepared], tell: Tell) -> None:
    """Merge each again and test it on a first subset; where answers differ, on all examples, and
    these numbers stay."""
    found, todo = shipped_results(collection), unchecked(collection)
    same_tasks = found is not None and task_digests(collection) == found.tasks
    for index, run in enumerate(todo):
        step = within(tell, index, len(todo))
        names = tuple(expert.name for expert in run.recipe.experts)
        options = dict(run.report.options)
        request = Request(collection, run.recipe.method, options, names, precision=QUICK)
        outcome = merge(request, ready, step)
        said = verdict(run.report, outcome.report) if same_tasks else OTHER_TASKS
        if outcome.run.id != run.id:  # of other files: it was never this family's
            runs.remove(run)
            said = OTHER_FILES
        if outcome.run.report.left:
            refine(request, outcome, ready, step)
        runs.change(outcome.run, shipped=said)


OTHER_FILES = "This machine's own: the shipped result is of other checkpoints."
OTHER_TASKS = "This machine's own: the shipped result is of other examples."


def verdict(shipped: Report, own: Report) -> str:
    """How a shipped merge fares against the same one, made here, in a sentence."""
    turned, count = differing(shipped.tasks, own.tasks)
    if not turned:
        return (
            f"Shipped with the family, and checked: all {count:,} answers asked here are the same."
        )
    if turned <= NOISE * count:
        return (
            f"Shipped with the family, and checked: {turned} of {count:,} answers differ here, as "
            "rounding can do. The numbers are this machine's own."
        )
    return f"This machine's own: {turned} of {count:,} answers differ from the shipped ones."
