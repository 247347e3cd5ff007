"""Which finished runs the session shows, and what was traced of them."""

from __future__ import annotations

import streamlit as st

from mats_core.analysis import Trajectory

from ..work import Run, runs


def show(run: Run) -> None:
    """Show a run, with the baseline beside it or, where there is none, what was shown before."""
    before = st.session_state.get("shown run")
    st.session_state["shown run"] = run.id
    if baseline() is not None:
        st.session_state["beside run"] = baseline()
    elif before != run.id:
        st.session_state["beside run"] = before


def baseline() -> str | None:
    return st.session_state.get("baseline")


def chosen(family: str, key: str) -> Run | None:
    """The run that `shown run`, `beside run` or `baseline` names."""
    wanted = st.session_state.get(key)
    return next((run for run in runs.everything(family) if run.id == wanted), None)


def delete(family: str, id: str) -> None:
    """Forget a run for good."""
    run = next((run for run in runs.everything(family) if run.id == id), None)
    if run is not None:
        runs.remove(run)
    for key in ("shown run", "beside run", "baseline"):
        if st.session_state.get(key) == id:
            st.session_state[key] = None


def trajectories(run: Run) -> dict[str, Trajectory]:
    """What was traced of a run in this session, by label."""
    traced: dict[str, dict[str, Trajectory]] = st.session_state.setdefault("trajectories", {})
    return traced.get(run.id, {})


def trace(run: Run, found: dict[str, Trajectory]) -> None:
    """Keep what was traced of a run, for this session and its last eight runs."""
    traced = st.session_state.setdefault("trajectories", {})
    traced[run.id] = found
    while len(traced) > 8:
        del traced[next(iter(traced))]
