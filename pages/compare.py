"""Compare: every finished run, what differs between them, and grids of runs to come."""

from __future__ import annotations

import streamlit as st

from mats_core import figures
from pages.shared import policy
from pages.shared.frame import Slot, families, keys, progress, show, tabs
from pages.shared.views import final, predicted_loss, sweep, ticked, tried, why
from pages.shared.views import runs as runlist
from pages.shared.work import runs

collection = families.header(
    "Compare",
    "Every finished merge is kept here. Tick some to see what sets them apart and whether it could "
    "be chance; sweep two settings to find better ones.",
    names=sweep.linked,
)
preparing = families.preparation(collection)
tried.collect()
for part in (final, predicted_loss, why):
    part.collect()
show.notices()
prepared = families.prepared(preparing)
kept = runs.everything(collection.name)
st.header("Finished merges", anchor=False)
compared, baseline = runlist.pick(collection.name, kept) if kept else ([], None)
if not kept:
    where = " until this tab is closed" if policy.current().apart else ", also after a reload"
    st.info(
        "There is no finished merge of this family yet. Make one on the Merge page, and it is "
        f"listed here{where}. Or let a sweep try many settings now.",
        icon=":material/merge:",
    )
    st.page_link("pages/merge.py", label="Go to Merge", icon=":material/arrow_forward:")
mine = (Slot.EXPLAINING, Slot.PREDICTING, *tried.SLOTS, Slot.FINISHING)
progress.bar(Slot.PREPARATION, *mine, cancel=mine)
looks = figures.looks(expert.name for expert in collection.experts)
shown = tried.views(collection, preparing, prepared, kept, looks)
if kept:
    shown = [*ticked.views(compared, baseline, prepared, looks), *shown]
tabs.show(shown, keys.COMPARE_VIEW)
