"""Inside: what became of single images and of single layers in a finished merge."""

from __future__ import annotations

from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.evaluation import share
from mats_core.merging import FamilyFile
from pages.shared.frame import Slot, families, keys, progress, session, show, shown, state
from pages.shared.views import BEFORE, confusion, layer_table, loading
from pages.shared.work import Run, Shelf, runs


def pick_run(collection: FamilyFile) -> Run | None:
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


def pick_task(run: Run) -> str:
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


collection = families.header(
    "Inside",
    "One merge under the magnifying glass: which examples it lost and won, what it takes for what, "
    "and in which layers its gain lies.",
)
preparing = families.preparation(collection)
shelf = session.inside_shelf = session.inside_shelf or Shelf()
if not runs.everything(collection.name):
    progress.bar(Slot.PREPARATION)
    st.info("There is no merge of this family to look into yet. Make one, then come back.")
    st.page_link("pages/merge.py", label="Go to Merge", icon=":material/play_arrow:")
    st.stop()
left, middle, right = st.columns([5, 4, 3], vertical_alignment="bottom")
with left:
    run = pick_run(collection)
assert run is not None
if not run.report.tasks:
    st.info("The experts of this family name no tasks, so there are no examples to look at.")
    st.stop()
with middle:
    task = pick_task(run)
who: Any = right.segmented_control(
    "Before the merge", list(BEFORE), default="expert", required=True, key="inside before",
    persist_state="session", format_func=lambda name: name.removesuffix(" encoder"),
    help="What the merge is compared with: the expert itself, or the pre-trained encoder with the "
    "expert's head.",
)  # fmt: skip
loading.collect()
layer_table.collect()
show.notices()
prepared = families.prepared(preparing)
top = st.container()  # filled last: the sections below start the work whose progress it shows
confusion.section(shelf, run, task, who, preparing)
if prepared is not None:
    loading.section(shelf, run, task, prepared)
    layer_table.section(shelf, run, task, prepared)
mine = (Slot.LOOKING, Slot.LOADING_PARTS, Slot.TABULATING)
with top:
    progress.bar(Slot.PREPARATION, *mine, cancel=mine)
