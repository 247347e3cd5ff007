"""Which finished runs the session shows, and what was traced of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import streamlit as st

from mats_core.analysis import Trajectory
from mats_core.recipes import FamilyFile

from .. import policy
from ..work import Run, runs
from . import browser, caches, state
from . import show as notices
from .state import Slot, Wanted, session

LINK = "run"  # the query parameter that names a run
MOST_TRACED = 8  # runs whose trajectories a session keeps
K = TypeVar("K")
T = TypeVar("T")


def show(run: Run) -> None:
    """Show a run, with the baseline beside it or, where there is none, what was shown before."""
    before = session.shown_run
    session.shown_run = run.id
    if (pinned := runs.pinned(run.family)) is not None:
        session.beside_run = pinned
    elif before != run.id:
        session.beside_run = before


def follow_link(collection: FamilyFile) -> str | None:
    """Show the run that the address names, once, with its settings; returns what it should name.

    A run that is being made is taken over from the worker, whose page was closed or reloaded.
    """
    wanted = browser.given(LINK, session.followed)
    if wanted is not None and session.followed != wanted:
        session.followed = wanted
        named = _named(collection.name, wanted)
        if named is not None:
            show(named)
            session.wanted = Wanted.of(named.recipe)
        elif not _taken_over(wanted) and session.shown_run != wanted:
            notices.keep(
                "info",
                f"The link names the run '{wanted[:40]}', which was not made {_here()}. Ask its "
                "author for the recipe, and load it on the page Export.",
            )
    one, merging = run(collection.name), state.job(Slot.MERGING)
    ended = merging is not None and merging.snapshot().state in ("failed", "cancelled")
    if merging is not None and not ended:  # the address names the run that it will be
        return wanted
    if one is None and ended:  # of which nothing is kept
        st.query_params.pop(LINK, None)
        session.followed = None
        return None
    if one is None:
        return wanted
    session.followed = one.id
    return one.id


def _here() -> str:
    return "in this session" if policy.current().apart else "on this machine"


def name(id: str) -> None:
    """Have the address name a run."""
    st.query_params[LINK] = session.followed = id


def _taken_over(id: str) -> bool:
    """Put the merge that will be this run into its slot, if it is under way."""
    job = caches.worker().named(id)
    if job is None or state.job(Slot.MERGING) is not None:
        return False
    state.put_job(Slot.MERGING, job)
    session.asked = replace(job.request, draft=False)
    session.wanted = Wanted.of(job.request.recipe())
    return True


def run(family: str) -> Run | None:
    """The run that is shown."""
    return _named(family, session.shown_run)


def beside(family: str) -> Run | None:
    """The run that stands beside it."""
    return _named(family, session.beside_run)


def baseline(family: str) -> Run | None:
    """The pinned run."""
    return _named(family, runs.pinned(family))


def _named(family: str, id: str | None) -> Run | None:
    return next((run for run in runs.everything(family) if run.id == id), None)


def delete(family: str, *ids: str) -> None:
    """Forget runs for good."""
    for id in ids:
        if (run := _named(family, id)) is not None:
            runs.remove(run)
    if session.shown_run in ids:
        session.shown_run = None
    if session.beside_run in ids:
        session.beside_run = None
    if runs.pinned(family) in ids:
        runs.pin(family, None)


def trajectories(run: Run) -> Mapping[str, Trajectory]:
    """What was traced of a run in this session, by label."""
    return session.trajectories.get(run.id, {})


def trace(run: str, traced: Mapping[str, Trajectory]) -> None:
    """Keep what was traced of a run, by its id."""
    session.trajectories = newest({**session.trajectories, run: traced}, MOST_TRACED)


def newest(kept: Mapping[K, T], most: int) -> dict[K, T]:
    """The last `most` entries."""
    return dict(list(kept.items())[-most:])
