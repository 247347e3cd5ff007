"""Starting merges, keeping what they give, and links to them."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import streamlit as st

from mats_core.errors import InputError
from mats_core.estimating import fits
from mats_core.merging import FamilyFile, parse_options
from mats_core.methods import METHODS

from ..frame import Slot, Wanted, session, show, shown, tracked
from ..work import Job, merge, prepare, runs

LINK = "run"  # the query parameter that names a run
SETTINGS = "settings"  # the one with which a notebook's panel hands its settings over, as JSON


def follow_link(collection: FamilyFile) -> None:
    """Show the run that the address names, once, with its settings; later keep the address true."""
    wanted = st.query_params.get(LINK)
    if wanted is not None and session.followed != wanted:
        session.followed = wanted
        named = next((run for run in runs.everything(collection.name) if run.id == wanted), None)
        if named is not None:
            session.shown_run = named.id
            session.wanted = Wanted.of(named.recipe)
        elif session.shown_run != wanted:
            show.keep(
                "info",
                f"The link names the run '{wanted}', which was not made on this machine. Ask its "
                "author for the recipe, and load it on the page Export.",
            )
    run = shown.run(collection.name)
    if run is not None and wanted != run.id:
        st.query_params[LINK] = session.followed = run.id


def follow_settings(collection: FamilyFile) -> None:
    """Put the settings that the address holds into the widgets, once."""
    given = st.query_params.get(SETTINGS)
    if given is None:
        return
    del st.query_params[SETTINGS]
    try:
        session.wanted = _wanted(json.loads(given), collection)
    except (InputError, ValueError, TypeError, KeyError) as error:
        said = str(error) if isinstance(error, InputError) else "they cannot be read"
        show.keep("info", f"The link holds settings that do not fit: {said}")


def _wanted(given: Any, collection: FamilyFile) -> Wanted:
    """Settings out of an address: judged, because an address can be written by others."""
    method, changed = str(given["method"]), dict(given["options"])
    parsed = parse_options(method, changed, collection.folder).model_dump()
    return Wanted(
        method,
        {name: parsed[name] for name in changed},
        tuple(map(str, given["experts"])),
        {str(name): float(weight) for name, weight in dict(given["weights"]).items()},
        rounds=max(1, int(given["rounds"])),
    )


def is_new(request: merge.Request) -> bool:
    """Whether a request differs from the last one that was started."""
    return session.asked not in (None, request)


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
    session.asked = request
    try:
        request.recipe()
    except InputError as error:
        show.keep("error", str(error))
        return
    todo = partial(merge.merge, request, preparing.outcome)
    tracked.start(Slot.MERGING, request, f"Merging by {METHODS[request.method].title}", todo)
    session.preparing = preparing


def collect() -> None:
    """Keep merges that have just finished, and finer tests of them; say why where one failed."""
    # Each is asked once: one that ends meanwhile is kept the next time.
    waiting = [(job, job.snapshot()) for job in session.refining]
    session.refining = tuple(job for job, now in waiting if now.active)
    for job, now in waiting:
        if now.state == "done":
            _keep(job.request, now.result)
    tracked.collect(
        Slot.MERGING, _finished, cancelled="The merge was cancelled; nothing was kept of it."
    )


def _finished(job: Job) -> None:
    """Keep and show the run, and test it on the examples that are left."""
    home, outcome = job.request.collection, job.outcome()
    run = _keep(home, outcome)
    shown.show(run)
    st.query_params[LINK] = session.followed = run.id
    if any("-" in task.merged.answers for task in outcome.report.tasks):
        _refine(home, outcome)


def _keep(home: FamilyFile, outcome: merge.Outcome) -> runs.Run:
    size = len(home.experts)
    return runs.add(home.name, size, outcome.recipe, outcome.report, session.baseline)


def _refine(home: FamilyFile, outcome: merge.Outcome) -> None:
    """Test on the remaining examples, whenever the worker has nothing better to do."""
    assert session.preparing is not None
    todo = partial(merge.refine, outcome, session.preparing.outcome)
    job = tracked.submit(home, "Testing on the remaining examples", todo, background=True)
    session.refining = (*session.refining, job)
