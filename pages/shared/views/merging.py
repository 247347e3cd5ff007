"""Starting merges, and showing what they give."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mats_core import figures
from mats_core.errors import InputError
from mats_core.estimating import fits
from mats_core.recipes import require_recipe
from mats_core.system import choose_device

from ..controls import presets
from ..frame import Slot, browser, session, show, shown, tracked
from ..work import Job, Run, merge, prepare, shipped, tested


def is_new(request: merge.Request) -> bool:
    """Whether a knob was moved since the last merge was started, or since the page was opened."""
    if session.asked is None:
        session.asked = request
    return session.asked != request


def cost(request: merge.Request, preparing: Job) -> None:
    """What these settings are called, and what the merge will take, before it is started; or why it
    would be refused."""
    if (preset := presets.of(request)) is not None:
        st.caption(show.plain(f"{preset.title}: {preset.sentence}"))
    if (problem := refusal(request)) is not None:
        show.problem(problem)
        return
    prepared: prepare.Prepared | None = preparing.snapshot().result
    if prepared is None:
        return
    try:
        found = merge.estimated(request, prepared)
    except InputError:  # said when somebody presses Merge
        return
    need = "" if fits(found) else " More than is free here: it would be refused."
    place, _ = choose_device(request.device)
    larger = f" At most {found.size:.1f} × the size of a static merge." if found.size > 1 else ""
    said = f"{found.sentence} on {place}, if nothing is remembered.{larger}{need}"
    st.caption(show.plain(said))


def refusal(request: merge.Request) -> str | None:
    """Why a request cannot be merged whatever the files hold; None where it can."""
    try:
        require_recipe(request.recipe())
        merge.require_statistics(request)
    except InputError as error:
        return str(error)
    return None


def start(request: merge.Request, preparing: Job, *, pressed: bool = True) -> None:
    """Hand a request to the worker; of one that was not `pressed` for, a draft is kept."""
    show.forget()
    session.asked = request
    if refusal(request) is None:  # else it is said beside the button
        asked = replace(request, draft=not pressed)
        job = merge.job(asked, preparing, _id(request, preparing))
        tracked.pressed(Slot.MERGING, job, look=pressed)


def _id(request: merge.Request, preparing: Job) -> str:
    """The id of the run to be, which the address names from now on: a reload finds it again."""
    prepared: prepare.Prepared | None = preparing.snapshot().result
    if prepared is None:
        return ""
    shown.name(id := merge.identity(request, prepared))
    return id


def collect() -> None:
    """Show merges that have just finished, watch their finer tests; say why where one failed."""
    session.refining = tuple(job for job in session.refining if job.active)
    tracked.collect(
        Slot.MERGING, _finished, cancelled="The merge was cancelled; nothing was kept of it."
    )


def told(run: Run) -> str:
    """A finished merge in a few words."""
    kept = run.report.normalised_accuracy
    if kept is None:
        return run.label
    about = "estimated " if tested.estimated_from(run.report) else ""
    return f"{run.label}: {about}{figures.percent(kept)} of the experts"


def _finished(job: Job) -> None:
    """Show the run, and watch its test on the examples that are left."""
    run = shipped.made_again(job.outcome())
    shown.show(run)
    shown.name(run.id)
    browser.say(f"Merged. {told(run)}.")
    st.toast(show.plain(told(run)), icon=":material/done:")
    if job.next is not None:
        session.refining = (*session.refining, job.next)
