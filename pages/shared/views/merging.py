"""Starting merges, keeping what they give, and links to them."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core.errors import InputError
from mats_core.estimating import fits
from mats_core.merging import FamilyFile
from mats_core.methods import METHODS

from ..controls import settings
from ..frame import caches, show, state
from ..work import Job, merge, prepare, runs

LINK = "run"  # the query parameter that names a run


def follow_link(collection: FamilyFile) -> None:
    """Show the run that the address names, once, with its settings; later keep the address true."""
    wanted = st.query_params.get(LINK)
    if wanted is not None and st.session_state.get("followed") != wanted:
        st.session_state["followed"] = wanted
        named = next((run for run in runs.everything(collection.name) if run.id == wanted), None)
        if named is not None:
            st.session_state["shown run"] = named.id
            settings.want(named.recipe)
        elif st.session_state.get("shown run") != wanted:
            show.keep(
                "info",
                f"The link names the run '{wanted}', which was not made on this machine. Ask its "
                "author for the recipe, and load it on the page Export.",
            )
    shown = state.chosen(collection.name, "shown run")
    if shown is not None and wanted != shown.id:
        st.query_params[LINK] = st.session_state["followed"] = shown.id


def is_new(request: merge.Request) -> bool:
    """Whether a request differs from the last one that was started."""
    return st.session_state.get("asked") not in (None, request)


def cost(request: merge.Request, preparing: Job) -> None:
    """What the merge will take, before it is started."""
    prepared: prepare.Prepared | None = preparing.snapshot().result
    if prepared is None:
        return
    try:
        found = merge.estimated(request, prepared)
    except InputError:  # said when somebody presses Merge
        return
    need = "" if fits(found) else " More than is free here: it would be refused."
    st.caption(show.plain(f"{found.sentence}, if nothing is remembered.{need}"))


def start(request: merge.Request, preparing: Job) -> None:
    """Check the request, and hand it to the worker."""
    show.forget()
    st.session_state["asked"] = request
    try:
        request.recipe()
    except InputError as error:
        show.keep("error", str(error))
        return
    if (job := st.session_state.get("merging")) is not None:
        job.cancel()
    todo = partial(merge.merge, request, preparing.outcome)
    job = Job(request, f"Merging by {METHODS[request.method].title}", todo)
    st.session_state["merging"] = caches.worker().submit(job)
    st.session_state["preparing"] = preparing


def refining() -> list[Job]:
    """The jobs that still test runs on the examples left out at first."""
    return [job for job in st.session_state.get("refining", []) if job.active]


def collect(collection: FamilyFile) -> None:
    """Keep merges that have just finished, and finer tests of them; say why where one failed."""
    waiting: list[Job] = st.session_state.get("refining", [])
    for job in waiting:
        now = job.snapshot()
        if now.state == "done":
            _keep(job.request, now.result)
    st.session_state["refining"] = [job for job in waiting if job.active]
    job: Job | None = st.session_state.get("merging")
    if job is None or job.active:
        return
    now = job.snapshot()
    if now.state == "done":
        home, outcome = job.request.collection, now.result
        run = _keep(home, outcome)
        state.show(run)
        st.query_params[LINK] = st.session_state["followed"] = run.id
        if any("-" in task.merged.answers for task in outcome.report.tasks):
            _refine(home, outcome)
    elif now.state == "failed":
        show.keep("error", now.error)
    elif now.state == "cancelled" and st.session_state.get("asked") == job.request:
        show.keep("info", "The merge was cancelled; nothing was kept of it.")
    del st.session_state["merging"]


def _keep(home: FamilyFile, outcome: merge.Outcome) -> runs.Run:
    return runs.add(home.name, len(home.experts), outcome.recipe, outcome.report, state.baseline())


def _refine(home: FamilyFile, outcome: merge.Outcome) -> None:
    """Test on the remaining examples, whenever the worker has nothing better to do."""
    ready = st.session_state["preparing"].outcome
    todo = partial(merge.refine, outcome, ready)
    job = Job(home, "Testing on the remaining examples", todo, background=True)
    st.session_state["refining"].append(caches.worker().submit(job))
