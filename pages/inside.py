"""Inside: what became of single images and of single layers in a finished merge."""

from __future__ import annotations

import streamlit as st

from pages.shared.frame import Slot, families, progress, session, show
from pages.shared.views import chosen, confusion, loading
from pages.shared.work import Shelf, runs

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
left, middle, right = st.columns([4, 4, 5], vertical_alignment="bottom")
with left:
    run = chosen.run(collection)
assert run is not None
if not run.report.tasks:
    st.info("The experts of this family name no tasks, so there are no examples to look at.")
    st.stop()
with middle:
    task = chosen.task(run)
with right:
    who, other = chosen.beside(collection, run)
loading.collect()
show.notices()
prepared = families.prepared(preparing)
top = st.container()  # filled last: the sections below start the work whose progress it shows
confusion.section(shelf, run, task, who, preparing, other)
if prepared is not None:
    loading.section(shelf, run, task, prepared)
mine = (Slot.LOOKING, Slot.LOADING_PARTS)
with top:
    progress.bar(Slot.PREPARATION, *mine, cancel=mine)
