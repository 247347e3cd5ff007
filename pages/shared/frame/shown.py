"""Which finished runs the session shows, and what was traced of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from mats_core.analysis import Trajectory

from ..work import Run, runs
from .state import session

MOST_TRACED = 8  # runs whose trajectories a session keeps
T = TypeVar("T")


def show(run: Run) -> None:
    """Show a run, with the baseline beside it or, where there is none, what was shown before."""
    before = session.shown_run
    session.shown_run = run.id
    if session.baseline is not None:
        session.beside_run = session.baseline
    elif before != run.id:
        session.beside_run = before


def run(family: str) -> Run | None:
    """The run that is shown."""
    return _named(family, session.shown_run)


def beside(family: str) -> Run | None:
    """The run that stands beside it."""
    return _named(family, session.beside_run)


def baseline(family: str) -> Run | None:
    """The pinned run."""
    return _named(family, session.baseline)


def _named(family: str, id: str | None) -> Run | None:
    return next((run for run in runs.everything(family) if run.id == id), None)


def delete(family: str, id: str) -> None:
    """Forget a run for good."""
    run = _named(family, id)
    if run is not None:
        runs.remove(run)
    if session.shown_run == id:
        session.shown_run = None
    if session.beside_run == id:
        session.beside_run = None
    if session.baseline == id:
        session.baseline = None


def trajectories(run: Run) -> Mapping[str, Trajectory]:
    """What was traced of a run in this session, by label."""
    return session.trajectories.get(run.id, {})


def trace(run: str, traced: Mapping[str, Trajectory]) -> None:
    """Keep what was traced of a run, by its id."""
    session.trajectories = newest({**session.trajectories, run: traced}, MOST_TRACED)


def newest(kept: Mapping[str, T], most: int) -> dict[str, T]:
    """The last `most` entries."""
    return dict(list(kept.items())[-most:])
