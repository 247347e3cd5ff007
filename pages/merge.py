"""Merge: choose a method and its knobs, run it, and see what came out."""

from __future__ import annotations

import streamlit as st

from mats_core import figures
from mats_core.methods import PROPOSED, WITHOUT_DATA
from pages.shared.controls import presets, settings, widgets
from pages.shared.frame import Slot, families, first_sight, progress, session, show, shown
from pages.shared.learn import guide
from pages.shared.views import convergence, final, merging, results, shipped, welcome
from pages.shared.work import merge

collection = families.header("Merge", first_sight.LEAD)
preparing = families.preparation(collection)
settings.follow_link(collection)
shipped.begin_with(collection)
settings.take_over(collection)
lesson = st.container()  # filled at the end: its answer quotes the run that has just finished
left, right = st.columns([5, 11], gap="medium")
# What is known comes first, so that its numbers are seen while knobs and figures are drawn.
with right:
    # A page reader tells what changes in an element that was there; style.css knows it, too.
    news = st.container(key="progress-place")
    meanwhile = progress.meanwhile(news, preparing)
    for view in (merging, final, convergence, guide):
        view.collect()
    checking = shipped.open_with(collection, preparing)
    picked = results.pick(collection.name) if shown.run(collection.name) else None
    remarks = st.container()
    if picked is not None:
        results.headline(*picked, preparing)
    below = st.container()
with left, st.container(border=True, key="settings"):  # style.css knows it
    lacking = merge.lacking(collection)
    method = widgets.method(WITHOUT_DATA if lacking else PROPOSED, lacking)
    # Above the knobs, so that it is on the screen of a laptop and of a phone.
    with st.container(horizontal=True, vertical_alignment="center"):
        press = st.empty()  # drawn once it is known whether these settings can be merged
        presets.menu()
        st.button("Reset", on_click=settings.reset, icon=":material/undo:")
    cost = st.container(gap="xsmall")
    at_once = st.toggle(
        "Live: merge at every change of a knob", key="live", persist_state="session"
    )
    request = settings.controls(collection, method, families.block_depths(preparing))
    session.standing = request
    widgets.explain(method)
    refused = merging.refusal(request) is not None
    clicked = press.button(
        "Merge", type="primary", icon=":material/play_arrow:", width="stretch", disabled=refused
    )
    with cost:
        merging.cost(request, preparing)
with news:
    meanwhile.empty()
    if clicked or (at_once and merging.is_new(request)):
        merging.start(request, preparing, pressed=clicked)
    show.notices()
    mine = (Slot.MERGING, Slot.FINISHING, Slot.TRACING, Slot.LESSON)
    progress.bar(
        Slot.PREPARATION, *mine, Slot.SURVEYING, cancel=mine, quiet=(*session.refining, *checking),
        live=convergence.live,
    )  # fmt: skip
    prepared = families.prepared(preparing)
    if prepared and prepared.problem:
        show.warnings([f"Without statistics: {prepared.problem}"])
if picked is not None:
    run, beside = picked
    with remarks:
        results.changed(request, run)
        if prepared:
            known = run.report.warnings
            show.warnings([note for note in prepared.notes if note not in known])
with below:
    if picked is None:
        welcome.section(collection, families.opened(preparing))
    elif prepared:
        results.details(run, beside, prepared)
    else:
        looks = figures.looks(expert.name for expert in collection.experts)
        results.accuracy(run, beside, looks)
with lesson:
    guide.banner("Merge")
