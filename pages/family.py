"""Family: the base, its experts, whether they fit, and what merging them would cost."""

from __future__ import annotations

import streamlit as st

from mats_core import figures
from mats_core.recipes import TRIED
from pages.shared.frame import Slot, families, progress, show
from pages.shared.views import advice, estimate, new_family
from pages.shared.views import models as cards

new_family.go_on()
collection = families.header(
    "Family",
    "The models to merge: one pre-trained base and experts fine-tuned from it, one for each task.",
    new_family.instead,
)
with st.container(horizontal=True):
    new_family.button()
    families.another()
    new_family.manage(collection)
preparing = families.preparation(collection)
progress.bar(Slot.PREPARATION)
if preparing.snapshot().state == "failed":
    estimate.compatibility(collection, checked=False)
prepared = families.opened(preparing)
if prepared is None:
    st.info("The experts appear here as soon as their files are checked.")
    st.stop()
experts = prepared.inputs.family.experts
if prepared.problem:
    show.warnings([f"Without statistics: {prepared.problem}"])
show.warnings(prepared.notes)
names = ["Models", "Before a merge", "Do they fit?"]
models, before, fit = st.tabs(names, key="family view", on_change="rerun")
if models.open:
    with models:
        cards.base(prepared)
        for start in range(0, len(experts), 3):
            # A row at a time: cards beside each other are equally high.
            for cell, expert in zip(st.columns(3), experts[start : start + 3], strict=False):
                with cell:
                    cards.expert(expert, prepared)
        if prepared.baselines:
            st.header("The gap that a merge has to close", anchor=False)
            looks = figures.looks(expert.name for expert in experts)
            show.figure(
                figures.baseline_bars(prepared.baselines, looks, TRIED.split), "family baselines"
            )
if before.open:
    with before:
        if preparing.active:
            st.info("What each method costs is said as soon as the statistics are measured.")
        else:
            advice.card(prepared, elsewhere=True)
            estimate.view(prepared)
if fit.open:
    with fit:
        st.header("Every expert beside the base", anchor=False)
        st.markdown(
            f"All {len(experts)} experts fit their base: the same architecture, every tensor there "
            "with the same name and shape, and every number finite. Heads differ by task and are "
            "kept apart."
        )
        estimate.compatibility(collection, checked=True)
