"""Merge: choose a method and its knobs, run it, and see what came out."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.checks import InputError
from mats_core.collection import Collection
from pages.shared import along, cached, families, results, runs, show, widgets, work
from pages.shared.jobs import Job

DEFAULT = "essential"


def controls(collection: Collection, method: str) -> work.Request:
    """Every knob of a method, and whom to merge, as one frozen request."""
    names = [expert.name for expert in collection.experts]
    options = widgets.options(method)
    with st.expander(f"Experts and arithmetic · all {len(names)}", icon=":material/group_work:"):
        experts = st.pills(
            "Experts", names, selection_mode="multi", default=names,
            key=f"experts {collection.name} {widgets.version()}", persist_state="session",
            help="Leave some out to see whom they disturb.",
        )  # fmt: skip
        seed = st.number_input(
            "Seed", 0, value=0, key=f"seed {widgets.version()}", persist_state="session"
        )
        dtype = st.segmented_control(
            "Arithmetic", ["float32", "float64"], default="float32", required=True,
            key=f"dtype {widgets.version()}", persist_state="session",
        )  # fmt: skip
    return work.Request(
        collection, method, options, tuple(n for n in names if n in (experts or [])),
        seed=int(seed), dtype=str(dtype),
    )  # fmt: skip


def start(request: work.Request, preparing: Job) -> None:
    """Check the request, and hand it to the worker."""
    show.forget()
    try:
        request.recipe()
    except InputError as error:
        show.keep("error", str(error))
        return
    if (job := st.session_state.get("merging")) is not None:
        job.cancel()
    todo = partial(work.merge, request, preparing.outcome)
    job = Job(request, f"Merging by {widgets.METHODS[request.method].title}", todo)
    st.session_state["merging"] = cached.worker().submit(job)


def collect(collection: Collection) -> None:
    """Keep a merge that has just finished; say why where it failed."""
    job: Job | None = st.session_state.get("merging")
    if job is None or job.active:
        return
    now = job.snapshot()
    if now.state == "done":
        outcome: work.Outcome = now.result
        home = job.request.collection
        runs.show(runs.add(home.name, len(home.experts), outcome.recipe, outcome.report))
    elif now.state == "failed":
        show.keep("error", now.error)
    elif now.state == "cancelled":
        show.keep("info", "The merge was cancelled; nothing was kept of it.")
    del st.session_state["merging"]


def welcome(prepared: work.Prepared | None) -> None:
    """Before the first merge: what there is to gain, and what to do."""
    st.markdown(
        "**Press Merge.** The experts become one model; you see at once how much of each "
        "expert's skill it keeps, and why."
    )
    if prepared and prepared.baselines:
        looks = figures.looks(e.name for e in prepared.inputs.family.experts)
        show.figure(figures.baseline_bars(prepared.baselines, looks), "baselines")


collection = families.header(
    "Merge",
    "Several models were fine-tuned from one base, each for a task of its own. Merge them into a "
    "single encoder that serves them all, and see what each task keeps.",
)
preparing = families.preparation(collection)
left, right = st.columns([5, 11], gap="medium")
with left, st.container(border=True):
    method = widgets.method(DEFAULT)
    # Above the knobs, so that it is on the screen of a laptop and of a phone.
    run_it, again = st.columns([5, 4])
    clicked = run_it.button("Merge", type="primary", icon=":material/play_arrow:", width="stretch")
    again.button("Reset", on_click=widgets.reset, icon=":material/undo:", width="stretch")
    request = controls(collection, method)
    widgets.explain(method)
with right:
    if clicked:
        start(request, preparing)
    collect(collection)
    along.collect(runs.chosen(collection.name, "shown run"))
    show.notices()
    merging, tracing = st.session_state.get("merging"), st.session_state.get("tracing")
    show.progress([preparing, merging, tracing], cancel=merging or tracing)
    prepared = families.prepared(preparing)
    if prepared and prepared.problem:
        st.warning(show.plain(f"Without statistics: {prepared.problem}"))
    if prepared is None or not runs.everything(collection.name):
        welcome(prepared)
    else:
        shown, beside = results.pick(collection.name)
        results.headline(shown, beside)
        results.tabs(shown, beside, prepared)
