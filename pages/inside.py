"""Inside: what became of single images and of single layers in a finished merge."""

from __future__ import annotations

import streamlit as st

from pages.shared.frame import Slot, families, progress, session, show
from pages.shared.views import (
    OTHER,
    between,
    chosen,
    confusion,
    feature_map,
    film,
    layer_table,
    loading,
    own_example,
    picks,
)
from pages.shared.work import Shelf, runs

collection = families.header(
    "Inside",
    "One merge under the magnifying glass: which examples it lost and won, what it takes for what, "
    "and in which layers its gain lies.",
    names=own_example.linked,
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
    run = picks.run(collection)
assert run is not None
if not run.report.tasks:
    st.info("The experts of this family name no tasks, so there are no examples to look at.")
    progress.bar(Slot.PREPARATION)
    if (prepared := families.prepared(preparing)) is not None:
        film.section(shelf, run, prepared)
    st.stop()
with middle:
    task = picks.task(run)
with right:
    who = picks.before()
other = picks.other(run, task) if who == OTHER else None
picks.beyond(run)
for part in (loading, film, chosen, layer_table, between, feature_map, own_example):
    part.collect()
show.notices()
prepared = families.prepared(preparing)
# Filled last: the sections below start the work whose progress it shows.
top = st.container(key="progress place")
if who == OTHER and other is None:
    st.info("There is no other merge of this family that was tested on this task.")
else:
    confusion.section(shelf, run, task, who, preparing, other)
if prepared is not None:
    own_example.section(shelf, run, task, prepared, other)
    film.section(shelf, run, prepared)
    chosen.section(run, task, prepared)
    loading.section(shelf, run, task, prepared)
    layer_table.section(shelf, run, task, prepared)
    between.section(shelf, run, prepared)
    feature_map.section(shelf, run, task, prepared)
mine = (
    Slot.LOOKING,
    Slot.FILMING,
    Slot.CHOOSING,
    Slot.LOADING_PARTS,
    Slot.TABULATING,
    Slot.WALKING,
    Slot.MAPPING,
    Slot.TRAVELLING,
    Slot.ASKING,
)
with top:
    progress.bar(Slot.PREPARATION, *mine, cancel=mine)
