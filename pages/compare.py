"""Compare: every finished run, what differs between them, and grids of runs to come."""

from __future__ import annotations

import streamlit as st

from mats_core import figures
from pages.shared import policy
from pages.shared.frame import Slot, families, keys, progress, show
from pages.shared.views import (
    comparison,
    final,
    ladder,
    leaderboard,
    predicted_loss,
    sizes,
    sweep,
    why,
)
from pages.shared.views import runs as runlist
from pages.shared.work import runs

HEADINGS = {
    "Accuracy": "What each task keeps",
    "Settings": "What was set",
    "Predicted loss": "Which tasks a merge hurts",
    leaderboard.VIEW: "What each method keeps",
    ladder.VIEW: "What each step adds",
    sizes.VIEW: "What accuracy costs in size",
    "Sweep two settings": "Every pair of two settings",
}
collection = families.header(
    "Compare",
    "Every finished merge is kept here. Tick some to see what sets them apart and whether it could "
    "be chance; sweep two settings to find better ones.",
    names=sweep.linked,
)
preparing = families.preparation(collection)
sweep.collect()
ladder.collect()
sizes.collect()
leaderboard.collect()
final.collect()
predicted_loss.collect()
why.collect()
show.notices()
prepared = families.prepared(preparing)
kept = runs.everything(collection.name)
names = [leaderboard.VIEW, ladder.VIEW, sizes.VIEW, "Sweep two settings"]
compared, baseline = [], None
st.header("Finished merges", anchor=False)
if kept:
    compared, baseline = runlist.pick(collection.name, kept)
    names = ["Accuracy", why.VIEW, "Settings", "Predicted loss", *names]
else:
    where = " until this tab is closed" if policy.current().apart else ", also after a reload"
    st.info(
        "There is no finished merge of this family yet. Make one on the Merge page, and it is "
        f"listed here{where}. Or let a sweep try many settings now.",
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
views = dict(zip(names, st.tabs(names, key=keys.COMPARE_VIEW, on_change="rerun"), strict=True))
for name, view in views.items():
    if not view.open:
        continue
    with view:
        if name in HEADINGS:  # the other one asks a question
            st.header(HEADINGS[name], anchor=False)
        if name == names[-1]:
            sweep.section(collection, kept, prepared)
        elif name == leaderboard.VIEW:
            leaderboard.section(collection, preparing, prepared)
        elif name == ladder.VIEW:
            ladder.section(collection, prepared, looks)
        elif name == sizes.VIEW:
            sizes.section(collection, prepared, looks)
        elif baseline is None:
            st.info("Tick at least one run in the list above.")
        elif name == "Accuracy":
            comparison.accuracy(compared, baseline)
        elif name == why.VIEW:
            why.section(compared, baseline, prepared, looks)
        elif name == "Settings":
            comparison.settings(compared, baseline)
        else:
            predicted_loss.section(compared, prepared, looks)
