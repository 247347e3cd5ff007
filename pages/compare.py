"""Compare: every finished run, what differs between them, and grids of runs to come."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from pages.shared import policy
from pages.shared.frame import Slot, families, keys, progress, show, tabs
from pages.shared.views import (
    final,
    intermediate,
    ladder,
    leaderboard,
    predicted_loss,
    search,
    sizes,
    soup,
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
collected = (
    sweep, search, soup, intermediate, ladder, sizes, leaderboard, final, predicted_loss, why,
)  # fmt: skip
for part in collected:
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
mine = (
    Slot.EXPLAINING, Slot.PREDICTING, Slot.SWEEPING, Slot.SEARCHING, Slot.DONATING, Slot.DONATED,
    Slot.CLIMBING, Slot.SIZING, Slot.SOUPING, Slot.RANKING, Slot.FINISHING,
)  # fmt: skip
progress.bar(Slot.PREPARATION, *mine, cancel=mine)
looks = figures.looks(expert.name for expert in collection.experts)
drawn = (collection, prepared, looks)
parts = (
    (leaderboard, (collection, preparing, prepared), "What each method keeps"),
    (ladder, drawn, "What each step adds"),
    (sizes, drawn, "What accuracy costs in size"),
    (intermediate, drawn, "What a donor does for a target"),
    (sweep, (collection, kept, prepared), "Every pair of two settings"),
    (search, (collection, kept, prepared), "Many settings at once"),
    (soup, (collection, kept, prepared), "Which experts to average"),
)
shown = [
    tabs.Tab(part.VIEW, partial(part.section, *given), heading) for part, given, heading in parts
]
if kept:
    shown = [*ticked.views(compared, baseline, prepared, looks), *shown]
tabs.show(shown, keys.COMPARE_VIEW)
