"""What the page Inside looks at: a run, a task, and what stands beside the merge."""

from __future__ import annotations

from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.evaluation import share
from mats_core.merging import FamilyFile

from ..frame import keys, session, shown, state
from ..work import Run, runs
from .answers import BEFORE

ANOTHER = "another run"


def run(collection: FamilyFile) -> Run | None:
    """One of the kept runs; a run that was just shown elsewhere is taken over."""
    kept = {run.id: run for run in reversed(runs.everything(collection.name))}
    if not kept:
        return None
    elsewhere = shown.run(collection.name)
    if elsewhere is not None and session.inside_follows != elsewhere.id:
        session.inside_follows = session.inside_run = elsewhere.id
    if session.inside_run not in kept:
        session.inside_run = next(iter(kept))
    chosen = st.selectbox(
        "Run", list(kept), format_func=lambda id: kept[id].label, key=keys.INSIDE_RUN,
        persist_state="session",
    )  # fmt: skip
    return kept[chosen]


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


def beside(collection: FamilyFile, run: Run) -> tuple[Any, Run | None]:
    """(expert or pre-trained encoder, None), or a second run: at first that of the page Merge."""
    kept = {one.id: one for one in reversed(runs.everything(collection.name)) if one.id != run.id}
    who: Any = st.segmented_control(
        "Beside the merge", [*BEFORE, ANOTHER] if kept else list(BEFORE), default="expert",
        required=True, key="inside before", persist_state="session",
        format_func=lambda name: name.removesuffix(" encoder"),
        help="What the merge is compared with: the expert itself, the pre-trained encoder with "
        "the expert's head, or the merge of another run.",
    )  # fmt: skip
    if who != ANOTHER:
        return who, None
    elsewhere = shown.beside(collection.name)
    first = list(kept).index(elsewhere.id) if elsewhere and elsewhere.id in kept else 0
    chosen = st.selectbox(
        "Other run", list(kept), index=first, format_func=lambda id: kept[id].label,
        key=f"inside other {run.id} {len(kept)}", persist_state="session",
    )  # fmt: skip
    return who, kept[chosen]
