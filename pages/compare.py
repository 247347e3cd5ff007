"""Compare: every finished run, what differs between them, and grids of runs to come."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from pages.shared.frame import Slot, families, keys, progress, show, tabs
from pages.shared.views import (
    final,
    ladder,
    leaderboard,
    predicted_loss,
    sizes,
    sweep,
    ticked,
    why,
)
from pages.shared.views import runs as runlist
from pages.shared.work import runs

collection = families.header(
    "Compare",
    "Every finished merge is kept here. Tick some to see what sets them apart and whether it could "
    "be chance; sweep two settings to find better ones.",
    names=sweep.linked,
)
preparing = families.preparation(collection)
for part in (sweep, ladder, sizes, leaderboard, final, predicted_loss, why):
    part.collect()
show.notices()
prepared = families.prepared(preparing)
kept = runs.everything(collection.name)
st.header("Finished merges", anchor=False)
compared, baseline = runlist.pick(collection.name, kept) if kept else ([], None)
if not kept:
    st.info(
        "There is no finished merge of this family yet. Make one on the Merge page, and it is "
        "listed here, on this machine, also after a reload. Or let a sweep try many settings now.",
        icon=":material/merge:",
    )
    st.page_link("pages/merge.py", label="Go to Merge", icon=":material/arrow_forward:")
mine = (
    Slot.EXPLAINING,
    Slot.PREDICTING,
    Slot.SWEEPING,
    Slot.CLIMBING,
    Slot.SIZING,
    Slot.RANKING,
    Slot.FINISHING,
)
progress.bar(Slot.PREPARATION, *mine, cancel=mine)
looks = figures.looks(expert.name for expert in collection.experts)
shown = [
    tabs.Tab(
        leaderboard.VIEW,
        partial(leaderboard.section, collection, preparing, prepared),
        "What each method keeps",
    ),
    tabs.Tab(
        ladder.VIEW, partial(ladder.section, collection, prepared, looks), "What each step adds"
    ),
    tabs.Tab(
        sizes.VIEW,
        partial(sizes.section, collection, prepared, looks),
        "What accuracy costs in size",
    ),
    tabs.Tab(
        "Sweep two settings",
        partial(sweep.section, collection, kept, prepared),
        "Every pair of two settings",
    ),
]
if kept:
    shown = [*ticked.views(compared, baseline, prepared, looks), *shown]
tabs.show(shown, keys.COMPARE_VIEW)
