"""Export: take a run along, in whichever form it is needed, and bring a recipe back."""

from __future__ import annotations

import streamlit as st

from pages.shared.frame import Slot, families, progress, show
from pages.shared.views import export, final, merging, recipe

collection = families.header(
    "Export",
    "Everything that a merge leaves you with: the model, what repeats it, and a report for others.",
)
preparing = families.preparation(collection)
merging.collect()
export.collect()
final.collect()
left, right = st.columns([8, 3], gap="medium")
with left:
    show.notices()
    mine = (Slot.WRITING, Slot.FINISHING)
    progress.bar(Slot.PREPARATION, *mine, cancel=mine)
    families.prepared(preparing)  # says where the family cannot be opened
    run = export.pick(collection.name)
    if run is None:
        st.info(
            "There is nothing to take along yet. Merge something first: it is then listed here.",
            icon=":material/info:",
        )
        st.page_link("pages/merge.py", label="Go to Merge", icon=":material/merge:")
    else:
        export.headline(run)
        final.section(run, preparing)
        first, second = st.columns(2)
        with first:
            export.model(run, preparing)
        with second:
            export.report(run, collection)
            export.notebook(run)
        export.recipe(run)
        export.mergekit(run)
with right:
    recipe.bring_back(collection)
