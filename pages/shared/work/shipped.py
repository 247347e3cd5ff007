"""The merges that come finished with a family: kept among its runs, and checked on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mats_core.checkpoints import write_atomically
from mats_core.errors import InputError
from mats_core.evaluation import QUICK
from mats_core.merging import differing, shipped_results, task_digests
from mats_core.merging import run as merge_again
from mats_core.methods import FIRST, Preset
from mats_core.recipes import TRIED, FamilyFile, FeatureErrors, LayerDone, Recipe, Report

from .. import policy
from . import again, runs
from .jobs import Job, Tell
from .merge import Outcome, Request, merge, refine
from .prepare import Prepared
from .runs import Run
from .several import turns

ADOPTED = "shipped"  # the file that says which results were put among the runs
CHECKING = "Shipped with the family; this machine is merging it again to check it …"
UNCHECKED = "Shipped with the family; a shared server does not merge it again."
PARTLY = "Shipped with the family, and checked in part: "
NOISE = 0.01  # of the answers, or of a number: more than rounding on another machine turns


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
                said = CHECKING if policy.current().checks else UNCHECKED
                runs.add(collection.name, size, recipe, report, shipped=said)
        write_atomically(file, mark.encode())
        kept = runs.everything(collection.name)
    return [run for run in kept if run.id in own]


def _recipe(collection: FamilyFile, report: Report) -> Recipe:
    return collection.recipe(report.method, dict(report.options), evaluate=TRIED, seed=report.seed)


def _id(collection: FamilyFile, report: Report) -> str:
    return runs.identity(_recipe(collection, report), report.fingerprints)


def first(collection: FamilyFile) -> Preset | None:
    """`FIRST`, where the best of the merges that came with the family is by its method."""
    found = shipped_results(collection)
    if found is None or not found.reports:
        return None
    best = max(found.reports, key=lambda report: report.normalised_accuracy or 0.0)
    return FIRST if best.method == FIRST.method else None


def unchecked(collection: FamilyFile) -> list[Run]:
    """The merges that came with a family and were not made again on this machine yet."""
    return [run for run in runs.everything(collection.name) if run.shipped == CHECKING]


def job(collection: FamilyFile, preparing: Job) -> Job:
    """The job that checks them.  It lasts: what it finds is kept, whichever tab is closed."""
    todo = partial(check, collection, preparing.outcome)
    title, name = "Checking the shipped merges", f"{collection.name} shipped"
    return Job(
        collection.name, title, todo, background=True, lasting=True, after=preparing, name=name
    )


def check(collection: FamilyFile, ready: Callable[[], Prepared], tell: Tell) -> None:
    """Merge each again and test it on a first subset; where answers differ, on all examples, and
    these numbers stay.  Of one that walks through the model the first block will do, where it comes
    out as it was shipped."""
    found, todo = shipped_results(collection), unchecked(collection)
    same_tasks = found is not None and task_digests(collection) == found.tasks
    steps = turns(tell, [run.recipe for run in todo], ready()) if todo else []
    for run, step in zip(todo, steps, strict=True):
        if same_tasks and (said := _begun(run, ready, step)):
            runs.change(run, shipped=said)
            continue
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


def _begun(run: Run, ready: Callable[[], Prepared], tell: Tell) -> str:
    """What to say of a merge that walks through the model, where its first block comes out as
    shipped, which takes a share of the whole; empty of other methods, and where it does not."""
    then = FeatureErrors.recorded(run.report)
    if then is None or len(then.streams) < 3:
        return ""
    names = {name for stage in then.first_block for name in stage.layers}
    left = {layer.name: layer for layer in run.report.layers if layer.name in names}
    try:
        recipe, inputs = again.opened(run, ready())
    except InputError:  # other files, of which the whole check tells
        return ""
    with contextlib.closing(merge_again(recipe, inputs=inputs)) as events:
        for event in events:
            tell(min(1.0, event.fraction * (len(then.streams) - 1)), event.text)
            if not isinstance(event, LayerDone) or event.layer.name not in left:
                continue
            if not _alike(left.pop(event.layer.name).details, event.layer.details):
                return ""
            if not left:
                return (
                    f"{PARTLY}the {len(names)} matrices of the first of {len(then.streams) - 1} "
                    "blocks see the same inputs here, and end as near to the experts. Its answers "
                    "are the shipped ones."
                )
    return ""


def _alike(then: Any, now: Any) -> bool:
    """Whether numbers are the same but for rounding, in the same places."""
    if isinstance(then, Mapping):
        same = isinstance(now, Mapping) and list(then) == list(now)
        return same and all(_alike(then[key], now[key]) for key in then)
    if isinstance(then, Sequence) and not isinstance(then, str):
        same = isinstance(now, Sequence) and len(then) == len(now)
        return same and all(map(_alike, then, now))
    if isinstance(then, float | int) and isinstance(now, float | int):
        return math.isclose(then, now, rel_tol=NOISE, abs_tol=1e-6)
    return then == now


def of_another_machine(run: Run) -> bool:
    """Whether a run's time is that of the machine that it was shipped from."""
    return run.shipped.startswith((CHECKING, PARTLY, UNCHECKED))


def made_again(outcome: Outcome) -> Run:
    """The run of a merge that somebody asked for; of one that was shipped and not checked as a
    whole, with what this says of it."""
    run = outcome.run
    if not of_another_machine(run):
        return run
    # The shipped answers stay where these do not contradict them, and they are to all examples.
    said = OTHER_ANSWERS if run.report.left else verdict(run.report, outcome.report)
    return runs.change(run, shipped=said)


OTHER_FILES = "This machine's own: the shipped result is of other checkpoints."
OTHER_ANSWERS = "This machine's own: some answers differ from the shipped ones."
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
