"""What a new visitor finds on Merge: the merges that came with the family, finished."""

from __future__ import annotations

from functools import partial

from mats_core.recipes import FamilyFile

from ..controls import presets
from ..frame import Slot, caches, session, shown, state, tracked
from ..work import Job, Run, runs, shipped


def begin_with(collection: FamilyFile) -> None:
    """A new session's settings: a quick merge by the method of the best of them, where one is
    known."""
    presets.begin(partial(shipped.first, collection))


def open_with(collection: FamilyFile, preparing: Job) -> tuple[Job, ...]:
    """Show the best of them beside the average where nothing else is shown; returns the job that
    checks them, if one is under way."""
    there = shipped.adopt(collection)
    if there and shown.run(collection.name) is None and state.job(Slot.MERGING) is None:
        _show(there)
    if any(run.shipped == shipped.CHECKING for run in there) and state.job(Slot.CHECKING) is None:
        job = shipped.job(collection, preparing)
        known = caches.worker().named(job.name)  # of another window
        state.put_job(Slot.CHECKING, known) if known else tracked.put(Slot.CHECKING, job)
    job = state.job(Slot.CHECKING)
    return (job,) if job is not None else ()


def _show(there: list[Run]) -> None:
    """The best, beside the pinned run or the first; why it is better is what Compare explains."""
    best = max(there, key=lambda run: run.report.normalised_accuracy or 0.0)
    other = next(run for run in there if run is not best) if len(there) > 1 else None
    session.shown_run = best.id
    session.beside_run = runs.pinned(best.family) or (other.id if other else None)
    if other is not None and session.explained is None:
        session.explained = (best.id, other.id)
