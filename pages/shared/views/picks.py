"""Which run and which task the page Inside looks into, and which other run stands beside."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from mats_core import figures
from mats_core.evaluation import share
from mats_core.recipes import FamilyFile

from ..frame import keys, session, shown, state
from ..work import Run, runs
from .answers import BEFORE, Before


def run(collection: FamilyFile) -> Run | None:
    """One of the kept runs; a run that was just shown elsewhere is taken over."""
    kept = {run.id: run for run in reversed(runs.everything(collection.name))}
    if not kept:
        return None
    elsewhere = shown.run(collection.name)
    if elsewhere is not None and session.inside_follows != elsewhere.id:
        session.inside_follows = session.inside_run = elsewhere.id
    return _of(kept, "Run", keys.INSIDE_RUN)


def _of(kept: Mapping[str, Run], label: str, key: str) -> Run:
    """The chosen one of some runs, at first the first of them."""
    if state.value(key) not in kept:
        state.put(key, next(iter(kept)))
    chosen = st.selectbox(
        label, list(kept), format_func=lambda id: kept[id].label, key=key, persist_state="session"
    )
    return kept[chosen]


def beyond(run: Run) -> None:
    """What is shown of a run that is no static merge."""
    if run.report.routed:
        st.caption(
            "Answers are those of the routed model, whose inputs choose their expert. Layers, "
            "parts and ways between models are of the static merge below its branches."
        )
    if run.report.trained:
        st.caption(
            "It was trained after it was merged: answers and weights are those after the "
            "training, and a layer that is solved again is that of the merge before it."
        )


def task(run: Run) -> str:
    """A task of the run, at first the one that lost most."""
    kept = {r.name: share(r) for r in run.report.tasks}
    key = keys.inside_task(run.family)
    if state.value(key) not in kept:
        state.put(key, min(kept, key=lambda name: kept[name]))
    return st.selectbox(
        "Task", list(kept), key=key, persist_state="session",
        format_func=lambda name: f"{name} · keeps {figures.percent(kept[name], 0)}",
        help="Which share of the expert's accuracy the merge keeps. At first the task that lost "
        "most is shown.",
    )  # fmt: skip


def before() -> Before:
    """What the merge is compared with."""
    return st.segmented_control(
        "Before the merge", list(BEFORE), default=BEFORE[0], required=True,
        key=keys.INSIDE_BEFORE, persist_state="session",
        format_func=lambda name: name.removesuffix(" encoder"),
        help="What the merge is compared with: the expert itself, the pre-trained encoder with "
        "the expert's head, or another finished merge.",
    )  # fmt: skip


def other(run: Run, task: str) -> Run | None:
    """Another run that was tested on the task, at first the newest."""
    kept = {
        other.id: other
        for other in reversed(runs.everything(run.family))
        if other.id != run.id and any(r.name == task for r in other.report.tasks)
    }
    return _of(kept, "Other merge", keys.INSIDE_OTHER) if kept else None
